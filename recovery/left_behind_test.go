package recovery

import (
	"context"
	"crypto/ed25519"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery/attest"
)

// as is an intruder on a machine of its own, who calls a replica under a key of another one.
func (n *nodes) as(id, to bft.ReplicaID, term transport.Term, key ed25519.PrivateKey, method string, request []byte) ([]byte, error) {
	certificate, err := transport.Credential(n.keystores[id-1].Identity(), n.genesis.ClusterID(), id, term, key)
	require.NoError(n.t, err)
	t, err := transport.New(transport.Config{
		Cluster: n.genesis.ClusterID(), Self: id, Listen: "127.0.0.1:0", Certificate: certificate, Handler: func(transport.Sender, []byte) {},
	})
	require.NoError(n.t, err)
	defer t.Close()
	member := n.genesis.Members[to-1]
	identity, err := attest.ParseIdentity(member.Identity)
	require.NoError(n.t, err)
	t.SetPeers([]transport.Peer{{ID: to, Address: member.Address, Identity: identity}})
	ctx, cancel := context.WithTimeout(n.t.Context(), 2*time.Second)
	defer cancel()
	return t.CallUnder(ctx, certificate, to, method, request)
}

// A replica is cut off in epoch 1, and never taken. The intruder goes from one of the others to the
// next (f = 1), each before it recovers: the keys that they have are those that the log of epoch 1
// names. With a point of the one that was cut off, and one of the column that he took in epoch 1, he
// would have the row, and so the share of epoch 1, of each: the group secret, after a round of all.
func TestAReplicaThatIsLeftBehindGivesNothingAway(t *testing.T) {
	n := startNodes(t, 1, 0)
	for i := range n.running {
		n.awaitEpoch(i, 1)
	}
	key := n.groupKey(0)
	then := n.running[0].state.Membership()
	given := n.running[0].State().LastHandoff.Dealings
	ask := func(id, to bft.ReplicaID) (err error) { // of the first that it can give a point of
		own := n.running[id-1].keeper.PrivateKey(then.Member(id).EpochKey)
		require.NotNil(t, own, "the intruder is where the key has not changed")
		for i, d := range given {
			if _, err = n.as(id, to, termOf(then), own, "reseal/handoff/point", d.Commitment[:]); err == nil {
				given = given[i : i+1]
				return nil
			}
		}
		return err
	}
	var off *atomic.Bool
	left := bft.ReplicaID(4)
	for ; ; left-- { // one at most got none of its parts from the dealers
		require.GreaterOrEqual(t, left, bft.ReplicaID(3))
		off = n.cutOff()
		n.stop(int(left - 1))
		n.start(int(left - 1))
		n.awaitEpoch(int(left-1), 1)
		if ask(1, left) == nil {
			break // a point is given while the epoch lasts
		}
	}
	n.configure = nil
	off.Store(true)
	n.order(1, key, 1)
	n.stop(0)
	n.start(0)
	for i := range n.running {
		if bft.ReplicaID(i+1) != left {
			n.awaitEpoch(i, 2)
		}
	}
	behind := n.running[left-1]
	require.Equal(t, then.Epoch, behind.State().Epoch)
	require.Error(t, ask(2, left))
}

// The intruder was in f + 1 replicas since, one after the other, and answers, under the keys that an
// old log names, that the group has another key. What f + 1 vouch for does stop a replica: whoever
// had its disk has put the state of a group of his own there.
func TestFormerKeysDoNotSayThatTheGroupIsAnotherOne(t *testing.T) {
	n := startNodes(t, 1, 0)
	for i := range n.running {
		n.awaitEpoch(i, 1)
	}
	then := n.running[3].state.Membership()
	another := word{term: termOf(then), groupKey: strings.Repeat("x", len(then.GroupKey))}
	asked := make(chan bft.ReplicaID, 100)
	var peers []transport.Peer
	for _, m := range then.Members[:2] {
		certificate, err := transport.Credential(n.keystores[m.ID-1].Identity(), n.genesis.ClusterID(), m.ID, termOf(then), n.running[m.ID-1].keeper.PrivateKey(m.EpochKey))
		require.NoError(t, err)
		i, err := transport.New(transport.Config{
			Cluster: n.genesis.ClusterID(), Self: m.ID, Listen: "127.0.0.1:0", Certificate: certificate, Handler: func(transport.Sender, []byte) {},
		})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, i.Close()) })
		i.HandleClient(methodEpoch, func(context.Context, *transport.Sender, []byte) ([]byte, error) {
			asked <- m.ID
			return another.marshal(), nil
		})
		peers = append(peers, transport.Peer{ID: m.ID, Address: i.Addr().String(), Identity: m.Identity})
	}
	n.configure = func(cfg *NodeConfig) {
		cfg.Network = func(tc transport.Config) (Network, error) {
			network, err := connect(tc)
			return redirected{network, peers}, err
		}
	}
	n.stop(3)
	n.start(3)
	node := n.running[3]
	ended := func() bool {
		select {
		case <-node.done:
			return true
		default:
			return false
		}
	}
	for first := <-asked; first == <-asked; { // both have said so
	}
	node.words.hear(1, another)
	require.Never(t, ended, 3*silence, silence/10)
	node.words.hear(1, another)
	node.words.hear(2, another)
	require.ErrorContains(t, node.Wait(), "move the store directory away")
	require.NoError(t, node.Close())
	n.running[3] = nil
}
