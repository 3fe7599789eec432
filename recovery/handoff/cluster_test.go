package handoff

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/store"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/threshold"
)

// memory is a device that keeps what is sealed in memory; it outlives the keepers.
type memory struct {
	keystore.Keystore // nil: a keeper asks for nothing else
	mu                sync.Mutex
	epoch             uint64
	sealed            map[uint64][]byte
	before            func() // called before each change; may be nil
}

func (d *memory) change() {
	if d.before != nil {
		d.before()
	}
}

func (d *memory) Status() (keystore.Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return keystore.Status{Epoch: d.epoch}, nil
}

func (d *memory) Claim() error { return nil }

func (d *memory) Seal(epoch uint64, secret []byte) error {
	d.change()
	d.mu.Lock()
	defer d.mu.Unlock()
	if epoch < d.epoch {
		return keystore.ErrErased
	}
	d.sealed[epoch] = bytes.Clone(secret)
	maps.DeleteFunc(d.sealed, func(e uint64, _ []byte) bool { return e > d.epoch && e != epoch && epoch > d.epoch })
	return nil
}

func (d *memory) Unseal(epoch uint64) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case epoch < d.epoch:
		return nil, keystore.ErrErased
	case d.sealed[epoch] == nil:
		return nil, keystore.ErrNotFound
	}
	return bytes.Clone(d.sealed[epoch]), nil
}

func (d *memory) Advance(epoch uint64) error {
	d.change()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.epoch = epoch // the caller's word counts
	maps.DeleteFunc(d.sealed, func(e uint64, _ []byte) bool { return e < epoch })
	return nil
}

// machine is one replica of a cluster: what outlives a process, and the present process.
type machine struct {
	id     bft.ReplicaID
	device *memory
	fs     vfs.FS
	store  *store.Store
	keeper *Keeper
	party  *Party
	stop   context.CancelFunc
	ctx    context.Context
	news   chan struct{} // holds a token when a share was completed after its epoch had begun
}

// cluster is replicas with real keepers and parties, a network in memory, and a log that does what
// it is told.
type cluster struct {
	t        testing.TB
	size     bft.Size
	founding *replica.Membership
	machines []*machine

	mu         sync.Mutex
	view       *governance.View
	membership *replica.Membership
	methods    map[bft.ReplicaID]map[string]transport.Method
	calls      map[string]int
	// meddle may answer a call in place of a replica: it is given the true answer. It may be nil.
	meddle func(from, to bft.ReplicaID, method string, answer []byte, err error) ([]byte, error)
	// refuse says of a dealing that it stays out of the log. It may be nil.
	refuse func(dealer bft.ReplicaID) bool
}

var testCluster = bft.ClusterID{1}

func newCluster(t testing.TB, f, c int) *cluster {
	x := &cluster{t: t, size: bft.Size{F: f, C: c}, methods: map[bft.ReplicaID]map[string]transport.Method{}, calls: map[string]int{}}
	x.view = &governance.View{F: f, C: c, N: x.size.N(), Quorum: x.size.Quorum()}
	x.founding = &replica.Membership{Size: x.size}
	for i := range x.size.N() {
		m := &machine{id: bft.ReplicaID(i + 1), device: &memory{sealed: map[uint64][]byte{}}, fs: vfs.NewMem(), news: make(chan struct{}, 1)}
		key, err := SealGenesisKey(m.device)
		require.NoError(t, err)
		x.founding.Members = append(x.founding.Members, replica.Member{ID: m.id, EpochKey: key})
		x.view.Members = append(x.view.Members, governance.MemberView{ID: m.id, HoldsShare: true, EpochKey: key})
		x.machines = append(x.machines, m)
	}
	x.membership = x.founding
	for _, m := range x.machines {
		x.boot(m)
	}
	t.Cleanup(func() {
		for _, m := range x.machines {
			x.halt(m)
		}
	})
	return x
}

func never() bool { return false }

func openKeeper(t testing.TB, device keystore.Keystore, fs vfs.FS, id bft.ReplicaID) (*Keeper, *store.Store) {
	t.Helper()
	s, err := store.Open("dir", testCluster, store.Options{FS: fs})
	require.NoError(t, err)
	k, err := Open(device, s, id, never, slog.New(slog.NewTextHandler(t.Output(), nil)))
	require.NoError(t, err)
	return k, s
}

func (x *cluster) boot(m *machine) {
	m.keeper, m.store = openKeeper(x.t, m.device, m.fs, m.id)
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.party = NewParty(Config{
		Cluster: testCluster, Self: m.id, Keeper: m.keeper, Network: port{x, m.id}, State: x, Founding: x.founding,
		Certify: func(key ed25519.PrivateKey) (tls.Certificate, error) {
			return tls.Certificate{PrivateKey: key}, nil
		},
		Present: x.present, Submit: x.submit, Completed: func() { m.news <- struct{}{} }, Log: slog.New(slog.NewTextHandler(x.t.Output(), nil)).With("replica", m.id),
	})
}

func (x *cluster) halt(m *machine) {
	if m.party == nil {
		return
	}
	m.stop()
	m.party.Close()
	m.keeper.Close()
	require.NoError(x.t, m.store.Close())
	m.party = nil
	x.mu.Lock()
	delete(x.methods, m.id)
	x.mu.Unlock()
}

func (x *cluster) View() *governance.View {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.view
}

func (x *cluster) Membership() *replica.Membership {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.membership
}

func (x *cluster) present(_ context.Context, last bft.Epoch) error {
	if x.Membership().Epoch > last {
		return errEpochOver
	}
	return nil
}

// submit takes a dealing into the log; a quorum of them is chosen.
func (x *cluster) submit(op governance.Operation) error {
	d := op.(*governance.Dealing)
	x.mu.Lock()
	defer x.mu.Unlock()
	v := *x.view
	if v.Phase != governance.PhaseDealing || d.Epoch != v.Epoch || d.Round != v.Round || x.refuse != nil && x.refuse(d.Dealer) {
		return nil
	}
	v.Dealings = append(v.Dealings[:len(v.Dealings):len(v.Dealings)], governance.ChosenDealing{
		Dealer: d.Dealer, Commitment: d.Commitment, PublicKey: d.PublicKey, Certificate: d.Certificate,
	})
	if len(v.Dealings) == v.Quorum {
		v.Phase = governance.PhaseReady
	}
	x.view = &v
	return nil
}

// open begins a handoff to all but those who lapse; who is due attests a fresh key.
func (x *cluster) open(due []bft.ReplicaID, lapse ...bft.ReplicaID) {
	v := *x.View()
	v.Members = append([]governance.MemberView(nil), v.Members...)
	for _, id := range due {
		key, err := x.machines[id-1].keeper.Fresh(v.Epoch, 1)
		require.NoError(x.t, err)
		v.Members[id-1].NextKey = key
	}
	v.Phase, v.Round, v.Dealings, v.Eligible = governance.PhaseDealing, v.Round+1, nil, nil
	for _, m := range x.machines {
		if !contains(lapse, m.id) {
			v.Eligible = append(v.Eligible, m.id)
		}
	}
	x.mu.Lock()
	x.view = &v
	x.mu.Unlock()
}

func contains(ids []bft.ReplicaID, id bft.ReplicaID) bool {
	for _, i := range ids {
		if i == id {
			return true
		}
	}
	return false
}

// follow has all that are up do their part, and waits until they have their shares.
func (x *cluster) follow(who ...*machine) {
	x.t.Helper()
	if len(who) == 0 {
		who = x.machines
	}
	for _, m := range who {
		if m.party != nil {
			m.party.Follow(m.ctx, x.View())
		}
	}
	for _, m := range who {
		if m.party != nil {
			x.await(m)
		}
	}
}

// await waits for the share that a running attempt gives.
func (x *cluster) await(m *machine) {
	x.t.Helper()
	m.party.mu.Lock()
	a := m.party.attempt
	m.party.mu.Unlock()
	if a == nil {
		return
	}
	select {
	case <-a.completed:
	case <-x.t.Context().Done():
		x.t.Fatalf("replica %d gets no share", m.id)
	}
}

// begin certifies the next epoch. Nobody has learned of it yet.
func (x *cluster) begin() *replica.Membership {
	x.t.Helper()
	var sharing *threshold.Sharing
	for _, m := range x.machines {
		m.keeper.mu.Lock()
		if m.keeper.nextSharing != nil {
			sharing = m.keeper.nextSharing
		}
		m.keeper.mu.Unlock()
	}
	require.NotNil(x.t, sharing)
	v := *x.View()
	v.Members = append([]governance.MemberView(nil), v.Members...)
	next := &replica.Membership{Epoch: v.Epoch + 1, Size: x.size, GroupKey: sharing.GroupKey().Bytes()}
	for i := range v.Members {
		m := &v.Members[i]
		if m.NextKey != nil {
			m.EpochKey, m.NextKey = m.NextKey, nil
		}
		m.HoldsShare = contains(v.Eligible, m.ID)
		next.Members = append(next.Members, replica.Member{ID: m.ID, EpochKey: m.EpochKey})
	}
	v.LastHandoff = governance.Handoff{Epoch: v.Epoch, Round: v.Round, Dealings: v.Dealings}
	v.Epoch, v.Phase, v.Dealings, v.Eligible = next.Epoch, governance.PhaseIdle, nil, nil
	x.mu.Lock()
	x.view, x.membership = &v, next
	x.mu.Unlock()
	return next
}

// learn has replicas, all when none is named, learn of the present epoch.
func (x *cluster) learn(who ...*machine) {
	if len(who) == 0 {
		who = x.machines
	}
	for _, m := range who {
		if m.party != nil {
			require.NoError(x.t, m.party.Learn(x.Membership()))
		}
	}
}

func (x *cluster) signed(who ...*machine) {
	if len(who) == 0 {
		who = x.machines
	}
	for _, m := range who {
		if m.party != nil {
			require.NoError(x.t, m.keeper.Signed(x.Membership().Epoch))
		}
	}
}

// handoff hands the key to the next epoch, from begin to end.
func (x *cluster) handoff(due ...bft.ReplicaID) *replica.Membership {
	x.t.Helper()
	x.open(due)
	x.follow()
	m := x.begin()
	x.learn()
	x.signed()
	return m
}

// port is a replica's access to the network.
type port struct {
	x    *cluster
	self bft.ReplicaID
}

func (p port) Handle(method string, serve transport.Method) {
	p.x.mu.Lock()
	defer p.x.mu.Unlock()
	if p.x.methods[p.self] == nil {
		p.x.methods[p.self] = map[string]transport.Method{}
	}
	p.x.methods[p.self][method] = serve
}

func (p port) Call(ctx context.Context, to bft.ReplicaID, method string, request []byte) ([]byte, error) {
	return p.x.call(ctx, &transport.Sender{ID: p.self, EpochKey: p.x.Membership().Member(p.self).EpochKey}, to, method, request)
}

func (p port) CallUnder(ctx context.Context, c tls.Certificate, to bft.ReplicaID, method string, request []byte) ([]byte, error) {
	return p.x.call(ctx, &transport.Sender{ID: p.self, EpochKey: public(c.PrivateKey.(ed25519.PrivateKey))}, to, method, request)
}

func (x *cluster) call(ctx context.Context, from *transport.Sender, to bft.ReplicaID, method string, request []byte) ([]byte, error) {
	x.mu.Lock()
	serve, meddle := x.methods[to][method], x.meddle
	x.calls[method]++
	x.mu.Unlock()
	if serve == nil {
		return nil, errors.New("it is down")
	}
	answer, err := serve(ctx, from, bytes.Clone(request))
	if meddle != nil {
		return meddle(from.ID, to, method, answer, err)
	}
	return answer, err
}

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return key
}
