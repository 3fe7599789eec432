package recovery

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/client"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/threshold"
	"github.com/reseal-bft/reseal/threshold/thresholdtest"
)

// The intruder (f = 1) was in replica 1 in epoch 1, and has a copy of its epoch key. It is rebooted
// and attests, epoch 2 begins and signs, but the network keeps that from replica 1, which goes on
// under the key of epoch 1 and vouches for it to whoever asks. The intruder, in replica 2 now, shows
// that key and hands the client's nonce on to replica 1. So he speaks for f + 1.
func TestARecoveredReplicaVouchesForNoKeyFromBeforeItsReboot(t *testing.T) {
	n := startNodes(t, 1, 0)
	for i := range n.running {
		n.awaitEpoch(i, 1)
	}
	key := n.groupKey(0)
	then := n.running[0].state.Membership()
	sharing, _, err := thresholdtest.Sharing(threshold.Params{N: 4, T: 3, F: 1})
	require.NoError(t, err)
	impostor := func(id bft.ReplicaID) *transport.Transport {
		own := n.running[id-1].keeper.PrivateKey(n.running[id-1].state.Membership().Member(id).EpochKey)
		require.NotNil(t, own)
		m := n.running[id-1].state.Membership()
		certificate, err := transport.Credential(n.keystores[id-1].Identity(), n.genesis.ClusterID(), id, termOf(m), own)
		require.NoError(t, err)
		cfg := transport.Config{
			Cluster: n.genesis.ClusterID(), Self: id, Listen: "127.0.0.1:0", Certificate: certificate, Handler: func(transport.Sender, []byte) {},
		}
		if id == 2 {
			cfg.Identity = n.keystores[1].Identity() // he is there now
		}
		i, err := transport.New(cfg)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, i.Close()) })
		i.HandleClient(methodInfo, func(context.Context, *transport.Sender, []byte) ([]byte, error) {
			return fmt.Appendf(nil, `{"state":{"group_key":"%x"}}`, sharing.GroupKey().Bytes()), nil
		})
		return i
	}
	var peers []transport.Peer
	for _, m := range n.genesis.Members {
		identity, err := attest.ParseIdentity(m.Identity)
		require.NoError(t, err)
		peers = append(peers, transport.Peer{ID: m.ID, Address: m.Address, Identity: identity})
	}
	first := impostor(1) // all that he keeps of replica 1: an epoch key, and a credential for it
	n.order(1, key, 1)
	off := n.cutOff()
	n.stop(0)
	n.start(0)
	n.configure = nil
	require.Eventually(t, func() bool {
		return slices.Contains(n.running[1].State().Attested, 1) || n.running[1].State().Epoch > 1
	}, time.Minute, time.Millisecond)
	off.Store(true)
	for i := 1; i < 4; i++ {
		n.awaitEpoch(i, 2)
	}
	t.Logf("replica 1 is in epoch %d", n.running[0].State().Epoch)
	require.Equal(t, then.Epoch, n.running[0].State().Epoch, "the test cuts it off in time; else run it again")

	relay, err := transport.Dial(n.genesis.ClusterID(), peers[0])
	require.NoError(t, err)
	defer relay.Close()
	first.HandleClient("reseal/vouch", func(ctx context.Context, _ *transport.Sender, nonce []byte) ([]byte, error) {
		return relay.Call(ctx, "reseal/vouch", nonce)
	})
	second := impostor(2)
	peers[0].Address, peers[1].Address = first.Addr().String(), second.Addr().String()
	peers[2].Address, peers[3].Address = "127.0.0.1:1", "127.0.0.1:1" // slow, or cut off
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	told, err := client.GroupKey(ctx, n.genesis.ClusterID(), peers, 1)
	require.ErrorIs(t, err, client.ErrNoGroupKey, "the client was told the intruder's key: %v", told != nil && told.Equal(sharing.GroupKey()))
}
