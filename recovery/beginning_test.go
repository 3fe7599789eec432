package recovery

import (
	"crypto/ed25519"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/scheme"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// An intruder was in one replica after the other (f = 1), before each one's first recovery, so that
// he has the genesis keys of a quorum. A replica whose store was emptied is in epoch 0, whose base
// and keys are known for ever. Neither does it admit who shows such a key, nor believe what a quorum
// of them has certified: it takes the state under the group key that others vouch for.
func TestTheKeysOfTheGenesisEndWithTheBeginning(t *testing.T) {
	n := startNodes(t, 1, 0)
	for i := range n.running {
		n.awaitEpoch(i, 1)
	}
	taken := make(map[bft.ReplicaID]ed25519.PrivateKey)
	public := make(map[bft.ReplicaID]ed25519.PublicKey)
	for i, m := range n.genesis.Members {
		public[m.ID] = m.EpochKey
		if i < 3 {
			taken[m.ID] = n.running[i].keeper.PrivateKey(m.EpochKey)
			require.NotNil(t, taken[m.ID])
		}
	}
	key := n.groupKey(0)
	for e := bft.Epoch(1); e <= 2; e++ {
		n.order(3, key, bft.ReplicaID(e))
		n.stop(int(e - 1))
		n.start(int(e - 1))
		for i := range n.running {
			n.awaitEpoch(i, e+1)
		}
	}
	state, err := governance.New(n.genesis)
	require.NoError(t, err)
	founding := state.Membership()

	// He has the network of a replica with an empty store, and answers under the genesis keys of two
	// that have recovered.
	var peers []transport.Peer
	for _, m := range n.genesis.Members {
		identity, err := attest.ParseIdentity(m.Identity)
		require.NoError(t, err)
		p := transport.Peer{ID: m.ID, Address: "127.0.0.1:1", Identity: identity}
		if m.ID <= 2 {
			certificate, err := transport.Credential(n.keystores[m.ID-1].Identity(), n.genesis.ClusterID(), m.ID, termOf(founding), taken[m.ID])
			require.NoError(t, err)
			i, err := transport.New(transport.Config{
				Cluster: n.genesis.ClusterID(), Self: m.ID, Listen: "127.0.0.1:0", Certificate: certificate, Handler: func(transport.Sender, []byte) {},
			})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, i.Close()) })
			p.Address = i.Addr().String()
		}
		peers = append(peers, p)
	}
	emptied := func(name string) func(*NodeConfig) {
		return func(cfg *NodeConfig) { cfg.Dir = filepath.Join(n.dir, name) }
	}
	n.configure = func(cfg *NodeConfig) {
		emptied("alone")(cfg)
		cfg.Network = func(tc transport.Config) (Network, error) {
			network, err := connect(tc)
			return redirected{network, peers}, err
		}
	}
	n.stop(3)
	n.start(3)
	node := n.running[3]
	require.Never(t, func() bool { return len(node.transport.Connected()) > 0 }, 2*silence, silence/20)
	for id := bft.ReplicaID(1); id <= 2; id++ {
		require.Error(t, node.admit(transport.Sender{ID: id, Term: termOf(founding), EpochKey: public[id]}))
	}

	// He is in the third, and the network is the others' again.
	n.configure = emptied("among others")
	n.stop(3)
	n.start(3)
	node = n.running[3]
	forged := bft.Statement{Epoch: 0, View: 1, Kind: bft.Finalize, Block: bft.Digest{9}}.Bytes(n.genesis.ClusterID())
	partials := make(map[bft.ReplicaID][]byte)
	for id, own := range taken {
		if partials[id], err = scheme.List(public, 3, own).Sign(forged); err != nil {
			require.NoError(t, err)
		}
	}
	signature, _, err := scheme.List(public, 3, nil).Combine(forged, partials)
	require.NoError(t, err)
	keys, err := node.keeper.Verifier(founding)
	require.NoError(t, err)
	require.Equal(t, []bool{true}, keys.Verify([][]byte{forged}, [][]byte{signature}), "the keys say so")
	believed, err := node.verifier(founding)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		require.Equal(t, []bool{false}, believed.Verify([][]byte{forged}, [][]byte{signature}))
		return node.State().Epoch >= 3
	}, time.Minute, 5*time.Millisecond, "it comes back all the same")
	require.True(t, key.Equal(n.groupKey(3)))
}

// The beginning is over when fewer than a quorum say with the keys of the genesis that it is not.
func TestBeginning(t *testing.T) {
	n := startNodes(t, 1, 0)
	n.awaitEpoch(3, 1)
	state, err := governance.New(n.genesis)
	require.NoError(t, err)
	founding := state.Membership()
	genesisKey := func(id bft.ReplicaID) ed25519.PublicKey { return founding.Member(id).EpochKey }
	other, _ := epochKey(t)
	now := time.Now()
	for name, c := range map[string]struct {
		said   map[bft.ReplicaID]word
		counts bool
	}{
		"nobody was heard":          {nil, false},
		"one":                       {map[bft.ReplicaID]word{1: {key: genesisKey(1), at: now}}, false},
		"a quorum with this":        {map[bft.ReplicaID]word{1: {key: genesisKey(1), at: now}, 2: {term: transport.Term{Epoch: 1}, key: genesisKey(2), at: now}}, true},
		"one is in epoch 2":         {map[bft.ReplicaID]word{1: {key: genesisKey(1), at: now}, 2: {term: transport.Term{Epoch: 2}, key: genesisKey(2), at: now}}, false},
		"one has recovered":         {map[bft.ReplicaID]word{1: {key: genesisKey(1), at: now}, 2: {key: other, at: now}}, false},
		"one with another's key":    {map[bft.ReplicaID]word{1: {key: genesisKey(1), at: now}, 2: {key: genesisKey(1), at: now}}, false},
		"one was heard long ago":    {map[bft.ReplicaID]word{1: {key: genesisKey(1), at: now}, 2: {key: genesisKey(2), at: now.Add(-vouchedFor)}}, false},
		"one of them is no member":  {map[bft.ReplicaID]word{1: {key: genesisKey(1), at: now}, 9: {key: genesisKey(2), at: now}}, false},
		"three others without this": {map[bft.ReplicaID]word{1: {key: genesisKey(1), at: now}, 2: {key: genesisKey(2), at: now}, 3: {key: genesisKey(3), at: now}}, true},
	} {
		x := &Node{cfg: n.running[3].cfg, keeper: n.running[3].keeper, words: &words{said: c.said}}
		require.Equal(t, c.counts, x.beginning(founding), name)
	}
}

// A replica that is cut off while all others recover hears of nobody under a key that it knows.
func TestAReplicaThatMissesTheRecoveryOfAllOthersComesBack(t *testing.T) {
	n := startNodes(t, 1, 0)
	for i := range n.running {
		n.awaitEpoch(i, 1)
	}
	key := n.groupKey(0)
	off := n.cutOff()
	n.stop(3)
	n.start(3)
	n.awaitEpoch(3, 1)
	n.configure = nil
	off.Store(true)
	for e := bft.Epoch(1); e <= 3; e++ {
		n.order(int(e)%3, key, bft.ReplicaID(e))
		n.stop(int(e - 1))
		n.start(int(e - 1))
		for i := range 3 {
			n.awaitEpoch(i, e+1)
		}
	}
	require.EqualValues(t, 1, n.running[3].State().Epoch, "the test cuts it off")
	off.Store(false)
	require.Eventually(t, func() bool { return n.running[3].State().Epoch >= 4 }, time.Minute, 5*time.Millisecond)
}
