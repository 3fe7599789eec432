package actor

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery"
)

func (a *Actor) cut(peer bft.ReplicaID) bool { return slices.Contains(a.conduct.Load().Cut, peer) }

func (a *Actor) connect(cfg transport.Config) (recovery.Network, error) {
	handler := cfg.Handler
	cfg.Handler = func(from transport.Sender, frame []byte) {
		if !a.cut(from.ID) {
			handler(from, frame)
		}
	}
	t, err := transport.New(cfg)
	n := &network{Transport: t, actor: a, cluster: cfg.Cluster, self: cfg.Self}
	n.wear(cfg.Certificate)
	if err == nil {
		n.flooding()
	}
	return n, err
}

// network is the machine's, as far as the conduct lets it be.
type network struct {
	*transport.Transport
	actor   *Actor
	cluster bft.ClusterID
	self    bft.ReplicaID
	peers   atomic.Pointer[[]transport.Peer]

	mu    sync.Mutex
	keys  keys
	twins map[bft.Digest]*bft.Block // the second block of a view, by the first
	large [][]byte                  // its last frames with a block of the largest size, while it floods
	worn  tls.Certificate
	ended chan struct{}
	flood sync.WaitGroup
}

var errCut = transport.Unreachable(errors.New("the network is cut"))

// SetPeers remembers whom a broadcast reaches.
func (n *network) SetPeers(peers []transport.Peer) {
	n.peers.Store(&peers)
	n.Transport.SetPeers(peers)
}

// SetCertificate remembers the key of the epoch.
func (n *network) SetCertificate(c tls.Certificate) {
	n.wear(c)
	n.Transport.SetCertificate(c)
}

func (n *network) Send(to bft.ReplicaID, frame []byte) {
	if !n.actor.cut(to) {
		n.Transport.Send(to, n.shown(to, frame))
	}
}

func (n *network) Broadcast(frame []byte) {
	if peers := n.peers.Load(); peers != nil {
		for _, p := range *peers {
			n.Send(p.ID, frame)
		}
	}
}

// handoff is what the names of the methods of handoffs begin with.
const handoff = "reseal/handoff/"

func (n *network) Call(ctx context.Context, to bft.ReplicaID, method string, request []byte) ([]byte, error) {
	n.actor.calls(to, method)
	if n.actor.cut(to) {
		return nil, errCut
	}
	return n.Transport.Call(ctx, to, method, request)
}

func (n *network) CallUnder(ctx context.Context, certificate tls.Certificate, to bft.ReplicaID, method string, request []byte) ([]byte, error) {
	n.actor.calls(to, method)
	if n.actor.cut(to) {
		return nil, errCut
	}
	return n.Transport.CallUnder(ctx, certificate, to, method, request)
}

func (n *network) CallVouched(ctx context.Context, to bft.ReplicaID, method string, request []byte) ([]byte, ed25519.PublicKey, error) {
	n.actor.calls(to, method)
	if n.actor.cut(to) {
		return nil, nil, errCut
	}
	return n.Transport.CallVouched(ctx, to, method, request)
}

func (n *network) Connected() []bft.ReplicaID {
	return slices.DeleteFunc(n.Transport.Connected(), n.actor.cut)
}

func (n *network) Handle(name string, serve transport.Method) {
	n.Transport.Handle(name, n.actor.serving(name, serve))
}

// serving answers peers as the conduct says: those that are cut off wait in vain.
func (a *Actor) serving(name string, serve transport.Method) transport.Method {
	return func(ctx context.Context, from *transport.Sender, request []byte) ([]byte, error) {
		if a.cut(from.ID) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		a.served(from.ID, name)
		answer, err := serve(ctx, from, request)
		if err == nil && name == methodPart {
			answer, err = a.deals(ctx, from.ID, answer)
		}
		rate := a.conduct.Load().BytesPerSecond
		if rate == 0 || err != nil {
			return answer, err
		}
		return answer, pause(ctx, time.Duration(len(answer))*time.Second/time.Duration(rate))
	}
}

func pause(ctx context.Context, span time.Duration) error {
	select {
	case <-time.After(span):
	case <-ctx.Done():
	}
	return ctx.Err()
}
