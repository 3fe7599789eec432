package replica_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/client"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/transport"
)

// register is a key under porcupine: input is what is written, empty for a read, whose output is
// what was found.
var register = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		if input != "" {
			return true, input
		}
		return state == output, state
	},
}

// Clients write and read one key without a block for the reads, while the replicas are stopped and
// started again one after the other.
func TestReadsAreLinearizableWhileReplicasComeAndGo(t *testing.T) {
	c := newCluster(t, bft.Size{F: 1})
	var peers []transport.Peer
	for i, m := range c.membership.Members {
		c.start(i)
		peers = append(peers, transport.Peer{ID: m.ID, Address: m.Address, Identity: m.Identity})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	verifier := client.NewVerifier(c.sharing.GroupKey())
	done := make(chan struct{})
	began := time.Now()
	var mu sync.Mutex
	var history []porcupine.Operation
	var users sync.WaitGroup
	for user := range 4 {
		conn, err := client.New(client.Config{
			Cluster: c.id, Peers: peers, Size: c.membership.Size, GroupKey: verifier, Key: newClient(t), Patience: 100 * time.Millisecond,
		})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, conn.Close()) })
		users.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				o := porcupine.Operation{ClientId: user, Input: "", Call: time.Since(began).Nanoseconds()}
				var err error
				if (i+user)%3 == 0 {
					o.Input = fmt.Sprintf("%d/%d", user, i)
					var operation []byte
					if operation, err = kv.Put([]byte("key"), []byte(o.Input.(string))); err == nil {
						_, err = conn.Submit(ctx, operation)
					}
				} else {
					_, err = conn.Read(ctx, []byte("key"), func(r *request.ReadReply) error {
						value, _, err := kv.VerifyQuery(r.AppRoot, []byte("key"), r.Answer, r.Proof)
						o.Output = string(value)
						return err
					})
				}
				if err != nil {
					t.Errorf("client %d: %v", user, err)
					return
				}
				o.Return = time.Since(began).Nanoseconds()
				mu.Lock()
				history = append(history, o)
				mu.Unlock()
			}
		})
	}
	operations := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(history)
	}
	more := func(n int) {
		from := operations()
		require.Eventually(t, func() bool { return operations() >= from+n || t.Failed() }, time.Minute, time.Millisecond)
	}
	more(20)
	for i := range c.nodes {
		c.stop(i)
		more(20)
		c.start(i)
		more(20)
	}
	close(done)
	users.Wait()
	result := porcupine.CheckOperationsTimeout(register, history, time.Minute)
	require.Equal(t, porcupine.Ok, result, "%d operations", len(history))
}
