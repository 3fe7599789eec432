package wholesim

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
)

// Times of the network, those of package transport.
const (
	stallTime  = 15 * time.Second // until a silent connection is given up
	firstRetry = 50 * time.Millisecond
	lastRetry  = time.Second
)

// network connects the processes of a simulated cluster. Like [transport.Transport] it has a
// connection for frames from each replica to each of its peers, which that replica dials, and calls
// beside it; each direction can be cut alone, as by a firewall. What is cut stalls, and breaks
// after a while; then what was under way is lost, and what waits in the queue stays.
type network struct {
	cluster bft.ClusterID

	mu     sync.Mutex
	rng    *rand.Rand
	ends   map[bft.ReplicaID]*endpoint // of the processes that run
	cuts   map[arrow]bool
	least  time.Duration // delay of a message
	spread time.Duration
	change chan struct{} // closed and replaced when ends or cuts change
	bytes  map[bft.ReplicaID]int64
}

// arrow is a direction between two replicas.
type arrow struct{ from, to bft.ReplicaID }

func newNetwork(cluster bft.ClusterID, seed uint64) *network {
	return &network{
		cluster: cluster, rng: rand.New(rand.NewPCG(seed, 2)),
		ends: make(map[bft.ReplicaID]*endpoint), cuts: make(map[arrow]bool),
		least: 100 * time.Microsecond, spread: time.Millisecond, change: make(chan struct{}),
		bytes: make(map[bft.ReplicaID]int64),
	}
}

// update changes something and wakes those who wait for it.
func (w *network) update(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	close(w.change)
	w.change = make(chan struct{})
}

func (w *network) delay() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.least + time.Duration(w.rng.Int64N(int64(w.spread)+1))
}

// reach returns the endpoint at the end of an arrow, nil when nobody is there; cut says that
// nothing comes through. Changed is closed when the answer may be another.
func (w *network) reach(a arrow) (end *endpoint, cut bool, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ends[a.to], w.cuts[a], w.change
}

// endpoint is one process's end of the network: a [recovery.Network].
type endpoint struct {
	w      *network
	cfg    transport.Config
	attack *attack // nil for a correct replica
	sent   func(frame []byte)

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // deliveries and calls served here, and links from here

	mu      sync.Mutex
	leaf    *tls.Certificate
	links   map[bft.ReplicaID]*link
	heard   map[bft.ReplicaID]chan struct{} // closed when the last frame of a peer's connection was handled
	methods map[string]method
}

type method struct {
	serve   transport.Method
	clients bool
}

// join makes the endpoint of a process.
func (w *network) join(cfg transport.Config, a *attack, sent func(frame []byte)) *endpoint {
	e := &endpoint{w: w, cfg: cfg, attack: a, sent: sent, leaf: &cfg.Certificate,
		links: make(map[bft.ReplicaID]*link), heard: make(map[bft.ReplicaID]chan struct{}), methods: make(map[string]method)}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	w.update(func() { w.ends[cfg.Self] = e })
	e.SetPeers(cfg.Peers)
	return e
}

// leave takes the process off the network at once.
func (e *endpoint) leave() {
	e.mu.Lock()
	e.cancel()
	e.mu.Unlock()
	e.w.update(func() {
		if e.w.ends[e.cfg.Self] == e {
			delete(e.w.ends, e.cfg.Self)
		}
	})
}

// Close ends all that goes on at this end.
func (e *endpoint) Close() error {
	e.leave()
	e.work.Wait()
	return nil
}

// enter notes work at this end, unless it is closing.
func (e *endpoint) enter() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx.Err() != nil {
		return false
	}
	e.work.Add(1)
	return true
}

func (e *endpoint) Handle(name string, serve transport.Method) { e.handle(name, method{serve: serve}) }

func (e *endpoint) HandleClient(name string, serve transport.Method) {
	e.handle(name, method{serve: serve, clients: true})
}

func (e *endpoint) handle(name string, m method) {
	if e.attack != nil {
		m.serve = e.attack.serving(name, m.serve)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.methods[name] = m
}

func (e *endpoint) SetPeers(peers []transport.Peer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx.Err() != nil {
		return
	}
	for _, p := range peers {
		if e.links[p.ID] == nil && p.ID != e.cfg.Self { // where a peer is, and who, does not change here
			l := &link{e: e, peer: p, wake: make(chan struct{}, 1), again: make(chan struct{}, 1)}
			e.links[p.ID] = l
			e.work.Go(l.run)
		}
	}
}

// Twice implements recovery.Network: no machine of the simulator is copied.
func (e *endpoint) Twice() []bft.ReplicaID { return nil }

// SetCertificate connects anew under another key.
func (e *endpoint) SetCertificate(certificate tls.Certificate) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leaf = &certificate
	for _, l := range e.links {
		signal(l.again)
	}
}

func (e *endpoint) Connected() []bft.ReplicaID {
	e.mu.Lock()
	defer e.mu.Unlock()
	var ids []bft.ReplicaID
	for _, id := range slices.Sorted(maps.Keys(e.links)) {
		if e.links[id].connected {
			ids = append(ids, id)
		}
	}
	return ids
}

func (e *endpoint) Send(to bft.ReplicaID, frame []byte) {
	if e.sent != nil && e.ctx.Err() == nil {
		e.sent(frame)
	}
	e.post(to, frame)
}

func (e *endpoint) Broadcast(frame []byte) {
	if e.sent != nil && e.ctx.Err() == nil {
		e.sent(frame)
	}
	e.mu.Lock()
	to := slices.Sorted(maps.Keys(e.links))
	e.mu.Unlock()
	for _, id := range to {
		e.post(id, frame)
	}
}

// post queues a frame, or what the replica's attack makes of it.
func (e *endpoint) post(to bft.ReplicaID, frame []byte) {
	if len(frame) > transport.MaxFrame {
		return
	}
	frames := [][]byte{frame}
	if e.attack != nil {
		frames = e.attack.sending(to, frame)
	}
	e.postRaw(to, frames...)
}

func (e *endpoint) postRaw(to bft.ReplicaID, frames ...[]byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l := e.links[to]; l != nil {
		l.put(frames)
	}
}

// authenticate tells whose end this is, if another end accepts its credential.
func (e *endpoint) authenticate(by *endpoint, leaf *x509.Certificate) (transport.Sender, error) {
	sender, err := transport.CheckCredential(e.w.cluster, e.cfg.Self, by.identityOf(e.cfg.Self), leaf, time.Now())
	if err == nil && by.cfg.Admit != nil {
		err = by.cfg.Admit(sender)
	}
	return sender, err
}

// worn is the leaf of the present credential.
func (e *endpoint) worn() *x509.Certificate {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.leaf.Leaf
}

// hear takes a connection of frames from a peer. The handler gets its frames in order, after those
// of the connection before; the frames are put into the channel, which the caller closes.
func (e *endpoint) hear(from transport.Sender) (chan<- []byte, bool) {
	if !e.enter() {
		return nil, false
	}
	frames, ended := make(chan []byte), make(chan struct{})
	e.mu.Lock()
	before := e.heard[from.ID]
	e.heard[from.ID] = ended
	e.mu.Unlock()
	go func() {
		defer e.work.Done()
		defer close(ended)
		if before != nil {
			<-before
		}
		for frame := range frames {
			if e.ctx.Err() == nil && (e.attack == nil || e.attack.receiving(from, frame)) {
				e.cfg.Handler(from, frame)
			}
		}
	}()
	return frames, true
}

// identityOf returns the identity that is pinned here for a peer; nil for none.
func (e *endpoint) identityOf(id bft.ReplicaID) *ecdsa.PublicKey {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l := e.links[id]; l != nil {
		return l.peer.Identity
	}
	return nil
}

func unreachable(to bft.ReplicaID, why string) error {
	return transport.Unreachable(fmt.Errorf("replica %d: %s", to, why))
}

// Call calls a peer. It fails at once when nobody is there, and stalls where the network is cut.
func (e *endpoint) Call(ctx context.Context, to bft.ReplicaID, name string, request []byte) ([]byte, error) {
	e.mu.Lock()
	leaf := e.leaf
	e.mu.Unlock()
	return e.CallUnder(ctx, *leaf, to, name, request)
}

// CallUnder calls a peer under a certificate, or without one as a client.
func (e *endpoint) CallUnder(ctx context.Context, certificate tls.Certificate, to bft.ReplicaID, name string, request []byte) ([]byte, error) {
	if !e.enter() {
		return nil, unreachable(to, "this end is closed")
	}
	defer e.work.Done()
	server, cut, _ := e.w.reach(arrow{e.cfg.Self, to})
	if cut {
		return nil, stall(ctx, e.ctx, to)
	}
	if server == nil {
		return nil, unreachable(to, "connection refused")
	}
	var caller *transport.Sender
	if certificate.Leaf != nil {
		from, err := e.authenticate(server, certificate.Leaf)
		if err != nil {
			return nil, unreachable(to, err.Error())
		}
		caller = &from
		if _, err := server.authenticate(e, server.worn()); err != nil {
			return nil, unreachable(to, err.Error())
		}
	} // a client asks for the identity only, and nobody forges one here
	return e.w.call(ctx, e.ctx, caller, server, name, request)
}

// CallVouched calls a peer as a client, and returns the key that it shows.
func (e *endpoint) CallVouched(ctx context.Context, to bft.ReplicaID, name string, request []byte) ([]byte, ed25519.PublicKey, error) {
	answer, err := e.CallUnder(ctx, tls.Certificate{}, to, name, request)
	if err != nil {
		return nil, nil, err
	}
	server, _, _ := e.w.reach(arrow{e.cfg.Self, to})
	if server == nil {
		return nil, nil, unreachable(to, "connection refused")
	}
	key, ok := server.worn().PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, nil, errors.New("it shows no key")
	}
	return answer, key, nil
}

// stall waits as a call does whose packets are lost.
func stall(ctx, end context.Context, to bft.ReplicaID) error {
	timer := time.NewTimer(stallTime)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("call of replica %d: %w", to, ctx.Err())
	case <-end.Done():
	case <-timer.C:
	}
	return unreachable(to, "the connection is silent")
}

// call has a method served, with the network's delays. From is nil for a client. End is when the
// caller's process ends.
func (w *network) call(ctx, end context.Context, from *transport.Sender, server *endpoint, name string, request []byte) ([]byte, error) {
	server.mu.Lock()
	m, ok := server.methods[name]
	server.mu.Unlock()
	if !ok || from == nil && !m.clients {
		return nil, errors.New("there is no such method for this caller")
	}
	if !server.enter() {
		return nil, unreachable(server.cfg.Self, "connection refused")
	}
	serving, cancel := context.WithCancel(server.ctx)
	defer cancel()
	type answer struct {
		data []byte
		err  error
	}
	answers := make(chan answer, 1)
	request = slices.Clone(request)
	go func() {
		defer server.work.Done()
		if pause(serving, w.delay()) != nil {
			return
		}
		data, err := m.serve(serving, from, request)
		data = slices.Clone(data)
		if pause(serving, w.delay()) == nil {
			answers <- answer{data, err}
		}
	}()
	select {
	case a := <-answers:
		if a.err != nil {
			return nil, fmt.Errorf("call %s of replica %d: %w", name, server.cfg.Self, errors.New(a.err.Error()))
		}
		if len(a.data) > transport.MaxCall {
			return nil, errors.New("the answer is too large")
		}
		return a.data, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("call %s of replica %d: %w", name, server.cfg.Self, ctx.Err())
	case <-end.Done():
		return nil, unreachable(server.cfg.Self, "this end is closed")
	case <-server.ctx.Done():
		return nil, unreachable(server.cfg.Self, "the connection broke")
	}
}

// callAsClient calls a replica as a client does. Clients are never cut off.
func (w *network) callAsClient(ctx context.Context, to bft.ReplicaID, name string, request []byte) ([]byte, error) {
	server, _, _ := w.reach(arrow{0, to})
	if server == nil {
		return nil, unreachable(to, "connection refused")
	}
	return w.call(ctx, ctx, nil, server, name, request)
}

// pause waits in virtual time.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
