package replica

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/store"
	"github.com/reseal-bft/reseal/bft/transport"
)

// world is a cluster's log as its honest members know it, made by hand: real blocks, signatures of
// leaders and state roots, certificates that say "good". It tests what one replica, number 1, makes
// of what others serve.
type world struct {
	t      testing.TB
	id     bft.ClusterID
	system *epochs
	ledger *ledger
	keys   map[bft.ReplicaID]ed25519.PrivateKey
	client ed25519.PrivateKey
	sent   uint64
	tip    bft.Tip
	view   bft.View
	blocks []*bft.Block // final ones, from height 1
	ends   map[bft.Epoch]*bft.Proof
}

// worldEpoch is the first epoch of a world.
func newWorld(t testing.TB, size bft.Size, first bft.Epoch) *world {
	w := &world{t: t, id: bft.Digest{7}, keys: make(map[bft.ReplicaID]ed25519.PrivateKey), ends: make(map[bft.Epoch]*bft.Proof)}
	m := &Membership{Epoch: first, Size: size, Base: bft.Base{Digest: w.id, Time: 1}, GroupKey: []byte("the group key")}
	for i := range size.N() {
		id := bft.ReplicaID(i + 1)
		public, private, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		w.keys[id] = private
		m.Members = append(m.Members, Member{ID: id, EpochKey: public})
		m.Leaders = append(m.Leaders, id)
	}
	_, w.client, _ = ed25519.GenerateKey(rand.Reader)
	w.system = newEpochs(m, make(map[bft.Height]bool))
	w.ledger = newLedger(w.id, kv.New(), w.system, testResults)
	w.enter()
	return w
}

func (w *world) enter() {
	m := w.system.Membership()
	base := m.Base
	base.Root = w.ledger.latest.Load().root
	w.tip, w.view = bft.BaseTip(m.Epoch, base), 0
}

// header is the next one that an honest leader would propose.
func (w *world) header(payload []byte) bft.Header {
	w.view++
	s := w.ledger.latest.Load()
	if w.tip.Last != 0 { // a filler certifies what the epoch's last block does
		return w.headerOn(payload, w.tip.Header.StateHeight, w.tip.Header.StateRoot, true)
	}
	return w.headerOn(payload, s.height, s.root, s.handoffReady)
}

func (w *world) headerOn(payload []byte, height bft.Height, root bft.Digest, end bool) bft.Header {
	m := w.system.Membership()
	return bft.Header{
		Epoch: m.Epoch, View: w.view, Height: w.tip.Header.Height + 1, Proposer: bft.LeaderOf(m.Leaders, worldWindow, w.view),
		Parent: w.tip.Digest, ParentView: w.tip.View(), Time: w.tip.Header.Time + 1, Payload: bft.PayloadDigest(payload),
		StateHeight: height, StateRoot: root, EpochEnd: end,
	}
}

const worldWindow = 4

func (w *world) sign(h bft.Header, payload []byte) *bft.Block {
	return &bft.Block{Header: h, Payload: payload, Signature: ed25519.Sign(w.keys[h.Proposer], bft.ProposalBytes(w.id, h.Digest()))}
}

// payload is that of a block with one write of the given size, or empty.
func (w *world) payload(bytes int) []byte {
	if bytes == 0 {
		return nil
	}
	return w.write("key", bytes)
}

func (w *world) write(key string, bytes int) []byte {
	w.sent++
	operation, err := kv.Put([]byte(key), make([]byte, bytes))
	require.NoError(w.t, err)
	r, err := request.New(w.id, w.client, w.sent, request.Application, [][]byte{operation})
	require.NoError(w.t, err)
	return request.AppendPayload(nil, []*request.Request{r})
}

// order makes the log longer by one final block.
func (w *world) order(bytes int) *bft.Block { return w.orderPayload(w.payload(bytes)) }

// orderKey orders a write to a key of its own.
func (w *world) orderKey(key string, bytes int) *bft.Block {
	return w.orderPayload(w.write(key, bytes))
}

func (w *world) orderPayload(payload []byte) *bft.Block {
	h := w.header(payload)
	block := w.sign(h, payload)
	require.NoError(w.t, w.tip.Extend(&h))
	requests, err := request.ParsePayload(payload)
	require.NoError(w.t, err)
	if !h.EpochEnd {
		_, err = w.ledger.execute(block, block.Digest(), requests, false)
		require.NoError(w.t, err)
	}
	w.blocks = append(w.blocks, block)
	return block
}

// filler makes a block above the epoch's last.
func (w *world) filler() *bft.Block {
	h := w.header(nil)
	require.NoError(w.t, w.tip.Extend(&h))
	return w.sign(h, nil)
}

// end makes the epoch's last block and fillers above it, the last of which is finalized, and begins
// the next epoch. It returns the fillers.
func (w *world) end(fillers int) []*bft.Block {
	w.system.readyAt[w.tip.Header.Height+1] = true
	w.order(0)
	last := w.order(0)
	require.True(w.t, last.EpochEnd)
	proof := &bft.Proof{}
	var blocks []*bft.Block
	certified := last
	for range fillers {
		certified = w.filler()
		blocks = append(blocks, certified)
		proof.Above = append(proof.Above, certified.Header)
	}
	proof.Certificate = certificate(bft.Finalize, &certified.Header)
	w.ends[last.Epoch] = proof
	_, err := w.ledger.execute(last, last.Digest(), nil, true)
	require.NoError(w.t, err)
	w.enter()
	return blocks
}

func certificate(kind bft.VoteKind, h *bft.Header) bft.Certificate {
	return bft.Certificate{Statement: bft.Statement{Epoch: h.Epoch, View: h.View, Kind: kind, Block: h.Digest()}, Signature: []byte("good")}
}

// piece is what an honest replica serves: blocks of one epoch from a height on, proven by a
// finalization.
func (w *world) piece(from bft.Height, limit int) *piece {
	p := new(piece)
	for h := from; int(h) <= len(w.blocks) && len(p.blocks) < limit; h++ {
		block := w.blocks[h-1]
		p.blocks = append(p.blocks, block)
		p.proof = &bft.Proof{Certificate: certificate(bft.Finalize, &block.Header)}
		if block.EpochEnd {
			p.proof = w.ends[block.Epoch]
			break
		}
	}
	return p
}

// replica starts the replica that is tested, from a store.
func (w *world) replica(s *store.Store, network Network) (*Replica, error) {
	return w.replicaOf(kv.New(), s, network)
}

func (w *world) replicaOf(application bft.Application, s *store.Store, network Network) (*Replica, error) {
	first := w.system.history[0]
	return New(Config{
		Cluster: w.id, Self: 1, Store: s, Network: network, Application: application, System: newEpochs(first, w.system.readyAt), Window: worldWindow,
		Verifier: func(m *Membership) (bft.Scheme, error) { return saysGood{string(m.GroupKey)}, nil }, Log: slog.New(slog.DiscardHandler),
		Retention: worldRetention,
	})
}

// worldRetention has a leap that is soon made: thousands of blocks take minutes under the race detector.
var worldRetention = Retention{Kept: keptBlocks, Leap: 1 << 9}

func (w *world) store() *store.Store {
	s, err := store.Open(w.t.TempDir(), w.id, store.Options{})
	require.NoError(w.t, err)
	w.t.Cleanup(func() { require.NoError(w.t, s.Close()) })
	return s
}

// saysGood accepts the signature "good" under the group key, and under another one the signature "evil".
type saysGood struct{ groupKey string }

func (saysGood) Name() string { return "says good" }
func (saysGood) Combine([]byte, map[bft.ReplicaID][]byte) ([]byte, []bft.ReplicaID, error) {
	return []byte("good"), nil, nil
}
func (s saysGood) Verify(messages, signatures [][]byte) []bool {
	want := "good"
	if s.groupKey == "evil" {
		want = "evil"
	}
	out := make([]bool, len(messages))
	for i := range signatures {
		out[i] = string(signatures[i]) == want
	}
	return out
}

// epochs is a system that changes epochs, as strict as recovery.State.
type epochs struct {
	history []*Membership // the last is the present one
	ready   bool
	readyAt map[bft.Height]bool // the heights after which the handoff is ready; shared by a world
}

func newEpochs(m *Membership, readyAt map[bft.Height]bool) *epochs {
	return &epochs{history: []*Membership{m}, readyAt: readyAt}
}

func (s *epochs) Apply(b BlockInfo, o []bft.Operation) [][]byte {
	s.ready = s.ready || s.readyAt[b.Height]
	return make([][]byte, len(o))
}

func (s *epochs) HandoffReady() bool                      { return s.ready }
func (s *epochs) Membership() *Membership                 { return s.history[len(s.history)-1] }
func (s *epochs) Root() bft.Digest                        { return s.SnapshotRoot(s.Snapshot()) }
func (s *epochs) SnapshotRoot(snapshot []byte) bft.Digest { return bft.PayloadDigest(snapshot) }

func (s *epochs) EndEpoch(b BlockInfo) {
	if !s.ready {
		panic("the epoch ends before its handoff is ready")
	}
	s.ready = false
	m := *s.Membership()
	m.Epoch++
	m.Base = bft.Base{Height: b.Height, Digest: b.Digest, Time: b.Time}
	s.history = append(s.history, &m)
}

func (s *epochs) Snapshot() []byte {
	m := s.Membership()
	var b cryptobyte.Builder
	b.AddUint64(uint64(m.Epoch))
	b.AddUint64(uint64(m.Base.Height))
	b.AddBytes(m.Base.Digest[:])
	b.AddUint64(uint64(m.Base.Time))
	b.AddUint8(map[bool]uint8{true: 1}[s.ready])
	return b.BytesOrPanic()
}

func (s *epochs) Restore(snapshot []byte) error {
	in := cryptobyte.String(snapshot)
	m := *s.Membership()
	var at uint64
	var ready uint8
	if !in.ReadUint64((*uint64)(&m.Epoch)) || !in.ReadUint64((*uint64)(&m.Base.Height)) || !in.CopyBytes(m.Base.Digest[:]) || !in.ReadUint64(&at) ||
		!in.ReadUint8(&ready) || !in.Empty() {
		return errors.New("malformed")
	}
	m.Base.Time, s.ready = int64(at), ready == 1
	s.history = append(s.history, &m)
	return nil
}

// peers answer calls, each as its function says; without one it cannot be reached.
type peers struct {
	serve map[bft.ReplicaID]serve
}

func (n *peers) Send(bft.ReplicaID, []byte)            {}
func (n *peers) Broadcast([]byte)                      {}
func (n *peers) Handle(string, transport.Method)       {}
func (n *peers) HandleClient(string, transport.Method) {}
func (n *peers) SetPeers([]transport.Peer)             {}
func (n *peers) Connected() (ids []bft.ReplicaID) {
	for id := range n.serve {
		ids = append(ids, id)
	}
	return ids
}

func (n *peers) Call(ctx context.Context, to bft.ReplicaID, method string, call []byte) ([]byte, error) {
	if n.serve[to] == nil {
		return nil, errors.New("unreachable")
	}
	return n.serve[to](ctx, method, call)
}

// honest serves the world's log, at most so many blocks at a time.
func (w *world) honest(limit int) func(context.Context, string, []byte) ([]byte, error) {
	return func(_ context.Context, method string, call []byte) ([]byte, error) {
		if method != methodLog {
			return nil, errors.New("has none")
		}
		return w.piece(fromOf(call), limit).marshal()
	}
}

func fromOf(call []byte) bft.Height {
	s := cryptobyte.String(call)
	var from uint64
	s.ReadUint64(&from)
	return bft.Height(from)
}

// silent answers nothing until it is waited for no longer.
func silent(ctx context.Context, _ string, _ []byte) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
