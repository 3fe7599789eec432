package handoff

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/store"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/threshold"
	"github.com/reseal-bft/reseal/threshold/thresholdtest"
)

// fickle is a keystore in memory that outlives its processes. The power goes at its change number
// cut, before it or after it.
type fickle struct {
	identity *ecdsa.PrivateKey
	epoch    uint64
	sealed   map[uint64][]byte
	changes  int
	cut      int // 0: never
	after    bool
	dead     bool
}

var errPower = errors.New("the power is off")

func newFickle(t testing.TB) *fickle {
	identity, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return &fickle{identity: identity, sealed: map[uint64][]byte{}}
}

func (d *fickle) change(do func()) error {
	if d.dead {
		return errPower
	}
	d.changes++
	cut := d.changes == d.cut
	if !cut || d.after {
		do()
	}
	if cut {
		d.dead = true
		return errPower
	}
	return nil
}

func (d *fickle) Identity() crypto.Signer { return d.identity }
func (d *fickle) Claim() error            { return nil }
func (d *fickle) Close() error            { return nil }
func (d *fickle) Status() (keystore.Status, error) {
	return keystore.Status{Kind: "memory", Epoch: d.epoch}, nil
}

func (d *fickle) Seal(epoch uint64, secret []byte) error {
	if epoch < d.epoch {
		return keystore.ErrErased
	}
	return d.change(func() {
		maps.DeleteFunc(d.sealed, func(e uint64, _ []byte) bool { return e > d.epoch && epoch > d.epoch })
		d.sealed[epoch] = bytes.Clone(secret)
	})
}

func (d *fickle) Unseal(epoch uint64) ([]byte, error) {
	if epoch < d.epoch {
		return nil, keystore.ErrErased
	}
	if d.sealed[epoch] == nil {
		return nil, keystore.ErrNotFound
	}
	return bytes.Clone(d.sealed[epoch]), nil
}

func (d *fickle) Advance(epoch uint64) error {
	if epoch < d.epoch {
		return keystore.ErrErased
	}
	return d.change(func() {
		d.epoch = epoch
		maps.DeleteFunc(d.sealed, func(e uint64, _ []byte) bool { return e < epoch })
	})
}

// solo is what replica 1 runs on, alone, and group what the others would give it: real dealings,
// handoff after handoff.
type solo struct {
	t      testing.TB
	device *fickle
	fs     *vfs.MemFS
	disk   *store.Store
	keeper *Keeper

	sharing *threshold.Sharing
	shares  []*threshold.Share
	last    *testHandoff         // that the log has chosen
	keys    []ed25519.PrivateKey // by epoch, as the log has them for replica 1
}

var params = threshold.Params{N: 4, T: 3, F: 1}

func newSolo(t testing.TB) *solo {
	m := &solo{t: t, device: newFickle(t), fs: vfs.NewMem()}
	key, err := SealGenesisKey(m.device)
	require.NoError(t, err)
	m.boot()
	t.Cleanup(m.halt)
	m.keys = append(m.keys, m.keeper.PrivateKey(key))
	require.NotNil(t, m.keys[0])
	return m
}

// boot starts a process.
func (m *solo) boot() {
	m.halt()
	m.device.dead, m.device.cut = false, 0
	disk, err := store.Open("store", bft.ClusterID{1}, store.Options{FS: m.fs})
	require.NoError(m.t, err)
	m.disk = disk
	m.keeper, err = Open(m.device, disk, 1, never, slog.New(slog.DiscardHandler))
	require.NoError(m.t, err)
}

func (m *solo) halt() {
	if m.disk != nil {
		m.keeper.Close()
		require.NoError(m.t, m.disk.Close())
		m.disk = nil
	}
}

// membership is that of an epoch, in which replica 1 has the key at its place in keys.
func (m *solo) membership(epoch bft.Epoch) *replica.Membership {
	at := min(int(epoch), len(m.keys)-1)
	out := &replica.Membership{
		Epoch: epoch, Size: bft.Size{F: 1},
		Members: []replica.Member{{ID: 1, EpochKey: m.keys[at].Public().(ed25519.PublicKey)}},
	}
	if epoch > 0 {
		out.GroupKey = m.sharing.GroupKey().Bytes()
	}
	return out
}

// handoff is what the log has chosen of one, with replica 1's parts.
type testHandoff struct {
	to         bft.Epoch
	round      governance.Round
	transition *threshold.Transition
	chosen     []governance.ChosenDealing
	parts      []*held
	shares     []*threshold.Share
}

// deal makes the dealings that lead to an epoch.
func (m *solo) deal(to bft.Epoch) *testHandoff {
	m.t.Helper()
	h := &testHandoff{to: to, round: governance.Round(to)}
	dealings := map[int]*threshold.Dealing{}
	for dealer := 1; dealer <= params.T; dealer++ {
		var d *threshold.Dealing
		var err error
		about := dealingContext(bft.ClusterID{1}, to-1, h.round, bft.ReplicaID(dealer))
		if m.sharing == nil {
			d, err = threshold.Deal(rand.Reader, params, about)
		} else {
			d, err = threshold.Redeal(rand.Reader, params, about, m.shares[dealer-1])
		}
		require.NoError(m.t, err)
		part, err := d.Part(1)
		require.NoError(m.t, err)
		dealings[dealer] = d
		h.chosen = append(h.chosen, governance.ChosenDealing{Dealer: bft.ReplicaID(dealer), Commitment: d.Commitment().Digest()})
		h.parts = append(h.parts, &held{to: to, round: h.round, commitment: d.Commitment(), part: part})
	}
	certified, err := thresholdtest.Certified(dealings)
	require.NoError(m.t, err)
	if m.sharing == nil {
		h.transition, err = threshold.KeyGeneration(certified...)
	} else {
		h.transition, err = threshold.Resharing(m.sharing, certified...)
	}
	require.NoError(m.t, err)
	h.shares, err = thresholdtest.Shares(h.transition, params.N, dealings)
	require.NoError(m.t, err)
	return h
}

// agree makes the handoff the group's.
func (m *solo) agree(h *testHandoff) {
	m.sharing, m.shares, m.last = h.transition.Sharing(), h.shares, h
}

// resume makes the share of the present epoch anew, as a party does after a start, if the disk has
// the parts of what the log chose.
func (m *solo) resume() {
	if m.last != nil && m.last.to == m.keeper.epoch {
		_ = m.complete(m.last)
	}
}

func (m *solo) key(epoch bft.Epoch) ed25519.PublicKey {
	return m.keys[min(int(epoch), len(m.keys)-1)].Public().(ed25519.PublicKey)
}

// receive is replica 1's part in a handoff, up to the parts.
func (m *solo) receive(h *testHandoff) error {
	if err := m.keeper.Prepare(h.to, h.round, m.key(h.to)); err != nil {
		return err
	}
	for _, d := range h.parts {
		if m.keeper.has(h.to, d.commitment.Digest()) != nil {
			continue
		}
		again, err := threshold.ParsePart(d.part.SecretBytes())
		require.NoError(m.t, err)
		if err := m.keeper.keep(&held{to: d.to, round: d.round, commitment: d.commitment, part: again}); err != nil {
			return err
		}
	}
	return nil
}

// complete is the rest of it.
func (m *solo) complete(h *testHandoff) error {
	return m.keeper.complete(h.to, h.transition, h.chosen)
}

// enter brings the solo with its share into an epoch, which signs.
func (m *solo) enter(to bft.Epoch) {
	m.t.Helper()
	for epoch := m.keeper.epoch + 1; epoch <= to; epoch++ {
		h := m.deal(epoch)
		require.NoError(m.t, m.receive(h))
		require.NoError(m.t, m.complete(h))
		m.agree(h)
		require.NoError(m.t, m.keeper.Learn(m.membership(epoch)))
		require.NotNil(m.t, m.keeper.Keys(m.membership(epoch)))
		require.NoError(m.t, m.keeper.Signed(epoch))
	}
}

// pass lets the group go on without replica 1.
func (m *solo) pass(epoch bft.Epoch) { m.agree(m.deal(epoch)) }
