package actor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery"
)

// Conduct is how an actor behaves from now on. The zero value is that of a correct replica.
type Conduct struct {
	// ClockAhead is added to the wall clock; negative: the clock is behind.
	ClockAhead time.Duration `json:"clock_ahead"`
	// Cut are the peers from which nothing arrives and which nothing reaches.
	Cut []bft.ReplicaID `json:"cut"`
	// BytesPerSecond bounds what it serves by calls to other replicas; 0: no bound.
	BytesPerSecond int `json:"bytes_per_second"`
}

// Save gives an actor its conduct. The file is replaced as a whole.
func (c Conduct) Save(file string) error {
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	next := file + ".next"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return err
	}
	return os.Rename(next, file)
}

// Actor follows a conduct file.
type Actor struct {
	file    string
	text    []byte
	conduct atomic.Pointer[Conduct]
}

// New reads the conduct in a file, and follows it until ctx ends.
func New(ctx context.Context, file string) (*Actor, error) {
	a := &Actor{file: filepath.Clean(file)}
	if err := a.read(); err != nil {
		return nil, err
	}
	go a.follow(ctx)
	return a, nil
}

func (a *Actor) read() error {
	text, err := os.ReadFile(a.file)
	if err != nil {
		return err
	}
	if bytes.Equal(text, a.text) {
		return nil
	}
	var c Conduct
	if err := json.Unmarshal(text, &c); err != nil {
		return fmt.Errorf("%s: %w", a.file, err)
	}
	a.text = text
	a.conduct.Store(&c)
	return nil
}

func (a *Actor) follow(ctx context.Context) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			_ = a.read() // the next tick tries again
		case <-ctx.Done():
			return
		}
	}
}

// Cast puts the actor into a node's place.
func (a *Actor) Cast(cfg *recovery.NodeConfig) {
	cfg.Clock = func() time.Time { return time.Now().Add(a.conduct.Load().ClockAhead) }
	cfg.Network = a.connect
}

func (a *Actor) cut(peer bft.ReplicaID) bool { return slices.Contains(a.conduct.Load().Cut, peer) }

func (a *Actor) connect(cfg transport.Config) (recovery.Network, error) {
	handler := cfg.Handler
	cfg.Handler = func(from transport.Sender, frame []byte) {
		if !a.cut(from.ID) {
			handler(from, frame)
		}
	}
	t, err := transport.New(cfg)
	return &network{Transport: t, actor: a}, err
}

// network is the machine's, as far as the conduct lets it be.
type network struct {
	*transport.Transport
	actor *Actor
	peers atomic.Pointer[[]transport.Peer]
}

var errCut = transport.Unreachable(errors.New("the network is cut"))

// SetPeers remembers whom a broadcast reaches.
func (n *network) SetPeers(peers []transport.Peer) {
	n.peers.Store(&peers)
	n.Transport.SetPeers(peers)
}

func (n *network) Send(to bft.ReplicaID, frame []byte) {
	if !n.actor.cut(to) {
		n.Transport.Send(to, frame)
	}
}

func (n *network) Broadcast(frame []byte) {
	if peers := n.peers.Load(); peers != nil {
		for _, p := range *peers {
			n.Send(p.ID, frame)
		}
	}
}

func (n *network) Call(ctx context.Context, to bft.ReplicaID, method string, request []byte) ([]byte, error) {
	if n.actor.cut(to) {
		return nil, errCut
	}
	return n.Transport.Call(ctx, to, method, request)
}

func (n *network) Connected() []bft.ReplicaID {
	return slices.DeleteFunc(n.Transport.Connected(), n.actor.cut)
}

func (n *network) Handle(name string, serve transport.Method) {
	n.Transport.Handle(name, n.actor.serving(serve))
}

// serving answers peers as the conduct says: those that are cut off wait in vain.
func (a *Actor) serving(serve transport.Method) transport.Method {
	return func(ctx context.Context, from *transport.Sender, request []byte) ([]byte, error) {
		if a.cut(from.ID) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		answer, err := serve(ctx, from, request)
		rate := a.conduct.Load().BytesPerSecond
		if rate == 0 || err != nil {
			return answer, err
		}
		select {
		case <-time.After(time.Duration(len(answer)) * time.Second / time.Duration(rate)):
		case <-ctx.Done():
		}
		return answer, ctx.Err()
	}
}
