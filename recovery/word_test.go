package recovery

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/client"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/threshold"
	"github.com/reseal-bft/reseal/threshold/thresholdtest"
)

// impostor is an intruder on a machine of its own, who answers under a credential that a replica's
// identity key signed while he was there.
func impostor(t *testing.T, n *nodes, id bft.ReplicaID, term transport.Term) *transport.Transport {
	_, own := epochKey(t)
	certificate, err := transport.Credential(n.keystores[id-1].Identity(), n.genesis.ClusterID(), id, term, own)
	require.NoError(t, err)
	i, err := transport.New(transport.Config{
		Cluster: n.genesis.ClusterID(), Self: id, Listen: "127.0.0.1:0", Certificate: certificate, Handler: func(transport.Sender, []byte) {},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, i.Close()) })
	return i
}

// An intruder is in one replica after the other (f = 1), and has left them all. The credentials that
// he made where he was are good by their dates, which he chose. He has the network of a client that
// does not know the group key yet, and of a replica that is behind; f + 1 replicas, of whom one is
// correct, never say what he says.
func TestTheWordOfAReplicaEndsWithItsReboot(t *testing.T) {
	n := startNodes(t, 1, 0)
	for i := range n.running {
		n.awaitEpoch(i, 1)
	}
	key := n.groupKey(0)
	sharing, _, err := thresholdtest.Sharing(threshold.Params{N: 4, T: 3, F: 1})
	require.NoError(t, err)
	began := transport.Term{Epoch: 9, Base: bft.Digest{9}}
	var left []*transport.Transport
	for e := bft.Epoch(1); e <= 2; e++ {
		i := impostor(t, n, bft.ReplicaID(e), began)
		i.HandleClient(methodEpoch, func(context.Context, *transport.Sender, []byte) ([]byte, error) {
			return word{term: began}.marshal(), nil
		})
		i.HandleClient(methodInfo, func(context.Context, *transport.Sender, []byte) ([]byte, error) {
			return fmt.Appendf(nil, `{"state":{"group_key":"%x"}}`, sharing.GroupKey().Bytes()), nil
		})
		left = append(left, i)
		n.order(3, key, bft.ReplicaID(e))
		n.stop(int(e - 1))
		n.start(int(e - 1))
		for i := range n.running {
			n.awaitEpoch(i, e+1)
		}
	}

	// A client.
	var peers []transport.Peer
	for _, m := range n.genesis.Members {
		identity, err := attest.ParseIdentity(m.Identity)
		require.NoError(t, err)
		peers = append(peers, transport.Peer{ID: m.ID, Address: "127.0.0.1:1", Identity: identity})
	}
	for i := range left {
		peers[i].Address = left[i].Addr().String()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	told, err := client.GroupKey(ctx, n.genesis.ClusterID(), peers, 1)
	require.ErrorIs(t, err, client.ErrNoGroupKey, "the client was told %v", told)

	// A replica that hears nobody else.
	n.configure = func(cfg *NodeConfig) {
		cfg.Network = func(tc transport.Config) (Network, error) {
			network, err := connect(tc)
			return redirected{network, peers}, err
		}
	}
	n.stop(3)
	n.start(3)
	node := n.running[3]
	require.Never(t, func() bool { return node.words.term(node.state.Membership()) == began }, 4*silence, silence/10)
	foreign, _ := epochKey(t)
	require.Error(t, node.admit(transport.Sender{ID: 1, Term: began, EpochKey: foreign}))
}

// redirected is a network that brings everything to those who the intruder says.
type redirected struct {
	Network
	peers []transport.Peer
}

func (r redirected) SetPeers([]transport.Peer) { r.Network.SetPeers(r.peers) }

// Words of several replicas count together when all can have spoken at one moment, after somebody
// has asked for a secret.
func TestWordsCountOfOneMoment(t *testing.T) {
	m := &replica.Membership{Epoch: 1, Size: bft.Size{F: 1}}
	for id := bft.ReplicaID(1); id <= 4; id++ {
		m.Members = append(m.Members, replica.Member{ID: id})
	}
	type said struct {
		by        bft.ReplicaID
		epoch     bft.Epoch
		asked, at int // tenths of a second after the beginning
	}
	for name, test := range map[string]struct {
		words []said
		since int
		count int
	}{
		"two, twice":                       {[]said{{1, 1, 0, 1}, {2, 1, 0, 2}, {1, 1, 3, 4}, {2, 1, 3, 4}}, 0, 2},
		"two, once":                        {[]said{{1, 1, 0, 1}, {2, 1, 0, 1}}, 0, 0},
		"one after the other":              {[]said{{1, 1, 0, 1}, {1, 1, 2, 3}, {2, 1, 4, 5}, {2, 1, 6, 7}}, 0, 1},
		"the second is asked too soon":     {[]said{{1, 1, 0, 1}, {1, 1, 2, 3}, {2, 1, 0, 4}, {2, 1, 5, 6}}, 0, 1},
		"before the secret was asked for":  {[]said{{1, 1, 0, 1}, {2, 1, 0, 1}, {1, 1, 3, 4}, {2, 1, 3, 4}}, 5, 0},
		"the first word before, not after": {[]said{{1, 1, 0, 1}, {2, 1, 0, 1}, {1, 1, 6, 7}, {2, 1, 6, 7}}, 5, 2},
		"one has gone on":                  {[]said{{1, 1, 0, 1}, {2, 1, 0, 1}, {1, 1, 3, 4}, {2, 2, 3, 4}}, 0, 1},
		"one was further already":          {[]said{{1, 1, 0, 1}, {2, 2, 0, 1}, {1, 1, 3, 4}, {2, 1, 3, 4}, {2, 1, 4, 5}}, 0, 1},
		"the first is too long ago":        {[]said{{1, 1, 0, 1}, {2, 1, 0, 1}, {1, 1, 55, 56}, {2, 1, 55, 56}}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, start := newWords(false), time.Now()
				moment := func(tenths int) time.Time { return start.Add(time.Duration(tenths) * 100 * time.Millisecond) }
				for _, x := range test.words {
					<-time.After(time.Until(moment(x.at)))
					s.hear(x.by, word{term: transport.Term{Epoch: x.epoch}, asked: moment(x.asked)})
				}
				require.Equal(t, test.count, s.together(m, 1, moment(test.since)))
			})
		})
	}
}
