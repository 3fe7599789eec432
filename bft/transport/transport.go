package transport

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/budget"
)

// Limits on what travels and waits.
const (
	// MaxFrame bounds a frame, in bytes: a message and some words about it. MaxCall bounds the
	// request and the answer of a call.
	MaxFrame = bft.MaxMessage + 1<<10
	MaxCall  = bft.MaxReply + 1<<10

	batchBytes       = 256 << 10 // frames that are taken from a queue at once
	windowBytes      = 16 << 20  // of unread data of calls, for each and for a connection
	bufferBytes      = 64 << 10  // of the reads and writes of a connection of calls
	clientBuffer     = 8 << 10   // likewise, of a client's connection: there are many
	streamsPerConn   = 256       // calls in flight on one connection
	headerBytes      = 16 << 10  // of the header of a call
	handshakeTimeout = 5 * time.Second
)

// Method serves calls. From is nil when a client calls. The request may be kept; an error's text
// goes to the caller.
type Method func(ctx context.Context, from *Sender, request []byte) ([]byte, error)

// Config is what a transport is made of.
type Config struct {
	Cluster bft.ClusterID
	Self    bft.ReplicaID
	// Listen is the address to listen on, host:port.
	Listen string
	// Certificate is a [Credential].
	Certificate tls.Certificate
	// Identity signs for those who ask whether the certificate's key is the replica's now, see
	// [Client.CallVouched]. Nil: nobody is told.
	Identity crypto.Signer
	// Peers are the other replicas, F of which may be Byzantine.
	Peers []Peer
	F     int
	// Handler is called with each frame that arrives: those of one peer in order, of different ones
	// at once. While it blocks, nothing more is read from that peer. The frame may be kept but not
	// changed.
	Handler func(from Sender, frame []byte)
	// Admit says whether a peer whose credential is good counts now: its epoch may be over, or its
	// key replaced. It is asked at each connection, in both directions, and again every five seconds
	// about those that this replica has made, and at each call that comes in; not for calls as a
	// client. It must not block. Nil admits all.
	Admit func(Sender) error
	// Named says whether the key of a peer is the one that counts for it now. Frames under another
	// key never end a connection of frames under that one: whoever once had the identity key could
	// cut its owner off. It must not block. Nil: all keys are alike.
	Named func(Sender) bool
	// OnConnect is called when frames to a peer begin to flow, again after each reconnection. It
	// must not block. May be nil.
	OnConnect func(id bft.ReplicaID)
	// OnLost is called when a peer has ended: no frames come from it, and its machine refuses a
	// connection; again with each attempt. It must not block. May be nil.
	OnLost func(id bft.ReplicaID)
	// Starting says whether methods are still to be registered: who calls one that is not known is
	// told to come again. It must not block. Nil: never.
	Starting func() bool
	// Log may be nil.
	Log *slog.Logger
	// Memory has the budgets of what waits; nil stands for those of [budget.Default] and a cluster
	// of six.
	Memory *budget.Table
	// MaxClients bounds the connections of clients, and MaxClientCalls their calls in flight, of
	// which an address has as many as are left to all; 0 stands for [budget.Connections] and 4096.
	MaxClients, MaxClientCalls int
}

// Transport connects a replica with its peers and clients. Safe for concurrent use.
type Transport struct {
	cfg         Config
	listener    net.Listener
	server      *grpc.Server
	clients     *clientServer
	calls       *callers // the connections on which peers call
	turns       *turns
	twins       *twins
	certificate atomic.Pointer[tls.Certificate]
	review      time.Duration // see the constant

	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.RWMutex
	peers    map[bft.ReplicaID]*peer
	methods  map[string]method
	incoming map[bft.ReplicaID]*incoming
	handling map[bft.ReplicaID]chan struct{} // holds a token while a connection of the peer's frames is read
}

type method struct {
	serve   Method
	clients bool
}

// New listens and connects to the peers; it returns without waiting for them.
func New(cfg Config) (*Transport, error) {
	if cfg.Handler == nil {
		return nil, errors.New("transport: a handler is needed")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Memory == nil {
		cfg.Memory = budget.Usual()
	}
	setDefault(&cfg.MaxClients, budget.Connections)
	setDefault(&cfg.MaxClientCalls, 4096)
	listener, err := (&net.ListenConfig{KeepAliveConfig: keepAlive}).Listen(context.Background(), "tcp", cfg.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("the address %s is in use: stop the process that listens there, or configure another port", cfg.Listen)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", cfg.Listen, err)
	}
	t := &Transport{
		cfg: cfg, listener: listener, review: review,
		peers:    make(map[bft.ReplicaID]*peer),
		methods:  make(map[string]method),
		incoming: make(map[bft.ReplicaID]*incoming),
		handling: make(map[bft.ReplicaID]chan struct{}),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.certificate.Store(&cfg.Certificate)
	if cfg.Identity != nil {
		t.HandleClient(methodVouch, (&voucher{t: t}).answer)
	}
	t.turns, t.twins = newTurns(max(1, runtime.GOMAXPROCS(0)/2)), newTwins(cfg.Log, cfg.F)
	t.clients = t.newClientServer()
	t.calls = newCallers("replicas", 0, peerConnections, cfg.Memory.Calls, cfg.Log)
	t.server = t.newServer()
	t.done.Go(func() {
		if err := t.server.Serve(listener); err != nil && t.ctx.Err() == nil {
			t.cfg.Log.Error("the transport has stopped listening", "address", cfg.Listen, "error", err)
		}
	})
	t.done.Go(t.clients.run)
	t.SetPeers(cfg.Peers)
	return t, nil
}

func setDefault(n *int, value int) {
	if *n == 0 {
		*n = value
	}
}

// Addr returns the address that the transport listens on.
func (t *Transport) Addr() net.Addr { return t.listener.Addr() }

// Close ends all connections and waits for all goroutines. Calls in flight fail.
func (t *Transport) Close() error {
	t.cancel()
	t.server.Stop()
	t.clients.server.Stop()
	t.mu.RLock()
	for _, in := range t.incoming {
		in.stop()
	}
	t.mu.RUnlock()
	t.done.Wait()
	return nil
}

// Send queues a frame for a peer. It never blocks; a frame for an unknown peer or beyond [MaxFrame]
// is dropped. The frame must not be changed afterwards.
func (t *Transport) Send(to bft.ReplicaID, frame []byte) {
	if len(frame) > MaxFrame {
		t.cfg.Log.Error("a frame is too large to send", "bytes", len(frame), "limit", MaxFrame)
		return
	}
	if p := t.peer(to); p != nil {
		p.queue.put(frame)
	}
}

// Broadcast queues a frame for all peers; see [Transport.Send].
func (t *Transport) Broadcast(frame []byte) {
	if len(frame) > MaxFrame {
		t.cfg.Log.Error("a frame is too large to send", "bytes", len(frame), "limit", MaxFrame)
		return
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, p := range t.peers {
		p.queue.put(frame)
	}
}

func (t *Transport) peer(id bft.ReplicaID) *peer {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.peers[id]
}

// Handle registers what serves a method, such as "reseal/log", for replicas.
func (t *Transport) Handle(name string, serve Method) { t.handle(name, method{serve: serve}) }

// HandleClient registers what serves a method for clients and replicas alike.
func (t *Transport) HandleClient(name string, serve Method) {
	t.handle(name, method{serve: serve, clients: true})
}

func (t *Transport) handle(name string, m method) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.methods["/"+name] = m
}

// SetPeers replaces the set of peers. Connections to and from those that are gone, or have another
// address or identity, end; the others stay.
func (t *Transport) SetPeers(peers []Peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return
	}
	wanted := make(map[bft.ReplicaID]Peer, len(peers))
	for _, p := range peers {
		if p.ID != t.cfg.Self {
			wanted[p.ID] = p
		}
	}
	for id, p := range t.peers {
		if w, ok := wanted[id]; ok && w.same(p.Peer) {
			continue
		}
		p.cancel()
		delete(t.peers, id)
		if in := t.incoming[id]; in != nil {
			in.stop()
		}
	}
	for id, w := range wanted {
		if t.peers[id] == nil {
			t.peers[id] = t.startPeer(w)
		}
	}
}

// SetCertificate replaces the certificate, after a new epoch key was made, and connects anew so
// that peers see it.
func (t *Transport) SetCertificate(certificate tls.Certificate) {
	t.certificate.Store(&certificate)
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, p := range t.peers {
		p.redial()
	}
}

// Connected returns the peers to which frames flow.
func (t *Transport) Connected() []bft.ReplicaID {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var ids []bft.ReplicaID
	for id, p := range t.peers {
		if p.connected.Load() {
			ids = append(ids, id)
		}
	}
	return ids
}

// PeerStats says how a peer keeps up.
type PeerStats struct {
	ID        bft.ReplicaID
	Connected bool
	Queued    int    // bytes
	Dropped   uint64 // frames, since the peer was added
}

// Stats returns how each peer keeps up.
func (t *Transport) Stats() []PeerStats {
	t.mu.RLock()
	defer t.mu.RUnlock()
	stats := make([]PeerStats, 0, len(t.peers))
	for id, p := range t.peers {
		queued, dropped := p.queue.stats()
		stats = append(stats, PeerStats{ID: id, Connected: p.connected.Load(), Queued: queued, Dropped: dropped})
	}
	return stats
}
