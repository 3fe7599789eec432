package governance

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/scheme"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/threshold"
	"github.com/reseal-bft/reseal/threshold/thresholdtest"
)

// cluster is a whole cluster around one State: all keys, fake TPMs, and the group key's real
// shares. A second State is restored from a snapshot after every block and executes the next one
// too; both must agree.
type cluster struct {
	t          *testing.T
	genesis    *Genesis
	state      *State
	twin       *State
	identities map[bft.ReplicaID]crypto.Signer
	epochKeys  map[bft.ReplicaID]ed25519.PrivateKey
	nextKeys   map[bft.ReplicaID]ed25519.PrivateKey
	tpms       map[bft.ReplicaID]*fakeTPM
	operators  []ed25519.PrivateKey
	approval   *ecdsa.PrivateKey
	shares     map[bft.ReplicaID]*threshold.Share
	sharing    *threshold.Sharing
	tip        replica.BlockInfo
}

const blockTime = 100 // milliseconds

type option func(*Genesis)

func interval(d time.Duration) option {
	return func(g *Genesis) { g.RoundInterval, g.AllowWear = Duration(d), true }
}
func size(f, c int) option { return func(g *Genesis) { g.F, g.C = f, c } }

func withoutTPM(g *Genesis) { g.Attestation = attest.Attestation{} }

// newCluster is a cluster in epoch 0: f=1, c=1, attestation required, unless options say otherwise.
func newCluster(t *testing.T, options ...option) *cluster {
	c := &cluster{
		t: t, identities: map[bft.ReplicaID]crypto.Signer{}, epochKeys: map[bft.ReplicaID]ed25519.PrivateKey{},
		nextKeys: map[bft.ReplicaID]ed25519.PrivateKey{}, tpms: map[bft.ReplicaID]*fakeTPM{},
	}
	g := &Genesis{
		Name: "test", Created: time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC), F: 1, C: 1, OperatorQuorum: 2,
		Attestation: attest.Attestation{
			Required: true, PCRs: []int{7, 14},
			Approved: []attest.ApprovedState{{Name: "v1", PCRs: map[int]attest.Measurement{7: good7, 14: good14}, MinimumFirmware: 0x10_0000}},
		},
		RoundDeadline: Duration(10 * time.Second), Window: 4,
		Timeouts: Timeouts{
			View: Duration(time.Second), ViewMax: Duration(time.Minute), Finalize: Duration(50 * time.Millisecond),
			Idle: Duration(100 * time.Millisecond), Resend: Duration(time.Second), Ahead: Duration(time.Second),
		},
	}
	for _, o := range options {
		o(g)
	}
	for range 3 {
		public, private := epochKey(t)
		g.Operators, c.operators = append(g.Operators, public), append(c.operators, private)
	}
	for i := range g.Size().N() {
		c.enrol(g, bft.ReplicaID(i+1))
	}
	var err error
	c.approval, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	g.BootApproval, err = x509.MarshalPKIXPublicKey(&c.approval.PublicKey)
	require.NoError(t, err)
	c.found(g)
	c.genesis = g
	c.state, c.twin = fresh(t, g), fresh(t, g)
	c.tip = replica.BlockInfo{Time: g.Created.UnixMilli()}
	return c
}

// found approves the founding boot states.
func (c *cluster) found(g *Genesis) {
	c.t.Helper()
	for i := range g.Attestation.Approved {
		state := &g.Attestation.Approved[i]
		approvals, err := g.Approve(rand.Reader, c.approval, state, func(id bft.ReplicaID) uint64 { return g.Members[id-1].ApprovalVersion })
		require.NoError(c.t, err)
		state.Approvals = approvals
	}
}

// approve is a boot state with approvals, for the versions that the log asks for.
func (c *cluster) approve(state attest.ApprovedState) *ApproveState {
	c.t.Helper()
	state.Approvals = c.approvals(&state, 0)
	return &ApproveState{state}
}

// revoke revokes a boot state and renews the approvals of the others.
func (c *cluster) revoke(name string) *RevokeState {
	c.t.Helper()
	body := &RevokeState{Name: name}
	for _, state := range c.state.View().Approved {
		if state.Name != name {
			body.Remaining = append(body.Remaining, RemainingState{state.Name, c.approvals(&state, 1)})
		}
	}
	return body
}

func (c *cluster) approvals(state *attest.ApprovedState, above uint64) []attest.DeviceApproval {
	c.t.Helper()
	approvals, err := c.genesis.Approve(rand.Reader, c.approval, state, func(id bft.ReplicaID) uint64 {
		return c.state.View().Member(id).Device.ApprovableVersion + above
	})
	require.NoError(c.t, err)
	return approvals
}

func (c *cluster) enrol(g *Genesis, id bft.ReplicaID) {
	identity, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(c.t, err)
	der, err := x509.MarshalPKIXPublicKey(&identity.PublicKey)
	require.NoError(c.t, err)
	public, private := epochKey(c.t)
	c.identities[id], c.epochKeys[id], c.tpms[id] = identity, private, newFakeTPM(c.t)
	m := GenesisMember{ID: id, Address: fmt.Sprintf("127.0.0.1:%d", 7000+int(id)), Identity: der, EpochKey: public}
	if g.Attestation.Required {
		m.AttestationKey, m.ResetCount = c.tpms[id].Public(), c.tpms[id].ResetCount
		m.StorageRoot = m.AttestationKey[1:] // any bytes do here
	}
	g.Members = append(g.Members, m)
}

func epochKey(t *testing.T) (ed25519.PublicKey, ed25519.PrivateKey) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return public, private
}

func fresh(t *testing.T, g *Genesis) *State {
	s, err := New(g)
	require.NoError(t, err)
	return s
}

// block orders operations in one block and returns their refusals.
func (c *cluster) block(ops ...Operation) []*attest.Refusal {
	c.t.Helper()
	var data []bft.Operation
	for _, op := range ops {
		b, err := Encode(op)
		require.NoError(c.t, err)
		data = append(data, bft.Operation{Data: b})
	}
	return c.raw(data...)
}

// raw orders operations as they are.
func (c *cluster) raw(data ...bft.Operation) []*attest.Refusal {
	c.t.Helper()
	c.nextBlock()
	results := c.state.Apply(c.tip, data)
	require.Len(c.t, results, len(data))
	require.Equal(c.t, results, c.twin.Apply(c.tip, data))
	c.compare()
	var refusals []*attest.Refusal
	for _, b := range results {
		r, err := ParseResult(b)
		require.NoError(c.t, err)
		require.Equal(c.t, b, r.Encode())
		refusals = append(refusals, r.Refusal)
	}
	return refusals
}

func (c *cluster) nextBlock() {
	c.tip.Epoch = c.state.Membership().Epoch
	c.tip.Height++
	c.tip.Time += blockTime
	c.tip.Digest = bft.PayloadDigest(fmt.Append(nil, c.tip.Height))
}

// compare holds the state against its twin, and makes a new twin from the snapshot.
func (c *cluster) compare() {
	c.t.Helper()
	require.Equal(c.t, c.state.Root(), c.twin.Root())
	c.twin = fresh(c.t, c.genesis)
	require.NoError(c.t, c.twin.Restore(c.state.Snapshot()))
	require.Equal(c.t, c.state.Snapshot(), c.twin.Snapshot())
	require.Equal(c.t, c.state.View(), c.twin.View())
	require.Equal(c.t, c.state.Membership(), c.twin.Membership())
}

// accepted orders operations, all of which must be accepted.
func (c *cluster) accepted(ops ...Operation) {
	c.t.Helper()
	for _, r := range c.block(ops...) {
		require.Nil(c.t, r)
	}
}

// refused orders one operation, which must be refused for the reason, and returns the sentence.
func (c *cluster) refused(reason attest.Reason, op Operation) string {
	c.t.Helper()
	r := c.block(op)[0]
	require.NotNil(c.t, r, "accepted, not refused for %v", reason)
	require.Equal(c.t, reason, r.Reason, r.Sentence)
	return r.Sentence
}

// wait lets block time pass in empty blocks.
func (c *cluster) wait(d time.Duration) {
	c.t.Helper()
	until := c.tip.Time + d.Milliseconds()
	c.block()
	c.tip.Time = max(until-2*blockTime, c.tip.Time)
	c.block()
	c.block()
}

// sign is a certificate of the epoch's scheme, by as many replicas as needed.
func (c *cluster) sign(message []byte) []byte {
	c.t.Helper()
	var combiner bft.Scheme
	partials := map[bft.ReplicaID][]byte{}
	if c.sharing == nil {
		keys := map[bft.ReplicaID]ed25519.PublicKey{}
		for id, key := range c.epochKeys {
			keys[id] = key.Public().(ed25519.PublicKey)
			partials[id] = ed25519.Sign(key, message)
		}
		combiner = scheme.List(keys, c.genesis.Size().Quorum(), nil)
	} else {
		for id, share := range c.shares {
			signature := share.Sign(message).Signature
			partials[id] = signature[:]
		}
		combiner = scheme.Threshold(c.sharing, nil)
	}
	signature, bad, err := combiner.Combine(message, partials)
	require.NoError(c.t, err)
	require.Empty(c.t, bad)
	return signature
}

// anchor is the latest block, notarized.
func (c *cluster) anchor() (bft.Header, bft.Certificate) {
	c.t.Helper()
	h := bft.Header{Epoch: c.tip.Epoch, View: bft.View(c.tip.Height), Height: c.tip.Height, Proposer: 1, Time: c.tip.Time}
	s := bft.Statement{Epoch: h.Epoch, View: h.View, Kind: bft.Notarize, Block: h.Digest()}
	return h, bft.Certificate{Statement: s, Signature: c.sign(s.Bytes(c.genesis.ClusterID()))}
}

func (c *cluster) challenge(id bft.ReplicaID) attest.Challenge {
	h, certificate := c.anchor()
	v := c.state.View()
	return attest.Challenge{Cluster: c.genesis.ClusterID(), Replica: id, Epoch: v.Epoch, Round: v.Round, Anchor: h, Certificate: certificate}
}

// evidence is what a replica shows now, with a fresh epoch key.
func (c *cluster) evidence(id bft.ReplicaID) *Attest {
	c.t.Helper()
	public, private := epochKey(c.t)
	c.nextKeys[id] = private
	quote := c.tpms[id].quote
	if !c.genesis.Attestation.Required {
		quote = nil
	}
	e, err := attest.NewEvidence(rand.Reader, c.challenge(id), public, c.identities[id], quote)
	require.NoError(c.t, err)
	return &Attest{e}
}

// announce has a due replica show the boot that it is in, unless it has.
func (c *cluster) announce(id bft.ReplicaID) {
	c.t.Helper()
	if m := c.state.View().Member(id); m.Device != nil && m.Due && !m.Awaited.Shown {
		c.accepted(c.presence(id))
	}
}

// reboot has a due replica show itself, boots it cleanly and returns its evidence.
func (c *cluster) reboot(id bft.ReplicaID) *Attest {
	c.t.Helper()
	c.announce(id)
	c.tpms[id].boot(good14)
	return c.evidence(id)
}

// order is an order with the next number, signed by two operators.
func (c *cluster) order(body OrderBody) *Order {
	c.t.Helper()
	o := &Order{Sequence: c.state.View().OrderSequence + 1, Body: body}
	require.NoError(c.t, o.Sign(c.genesis, c.operators[2]))
	require.NoError(c.t, o.Sign(c.genesis, c.operators[0]))
	return o
}

// deal makes real dealings of the given dealers for the running attempt.
func (c *cluster) deal(dealers ...bft.ReplicaID) (map[int]*threshold.Dealing, []Operation) {
	c.t.Helper()
	v := c.state.View()
	params := threshold.Params{N: v.N, T: v.Quorum, F: v.F}
	dealings, ops := map[int]*threshold.Dealing{}, []Operation(nil)
	for _, id := range dealers {
		about := fmt.Appendf(nil, "epoch %d, round %d, dealer %d", v.Epoch, v.Round, id)
		var d *threshold.Dealing
		var err error
		if v.Epoch == 0 {
			d, err = threshold.Deal(rand.Reader, params, about)
		} else {
			d, err = threshold.Redeal(rand.Reader, params, about, c.shares[id])
		}
		require.NoError(c.t, err)
		key, err := d.Commitment().PublicKey()
		require.NoError(c.t, err)
		op := &Dealing{Epoch: v.Epoch, Round: v.Round, Dealer: id, Commitment: d.Commitment().Digest(), PublicKey: [PublicKeySize]byte(key.Bytes())}
		op.Certificate = c.sign(op.Statement(c.genesis.ClusterID()))
		dealings[int(id)], ops = d, append(ops, op)
	}
	return dealings, ops
}

// dealers are the first q holders of shares.
func (c *cluster) dealers() []bft.ReplicaID {
	var ids []bft.ReplicaID
	for _, m := range c.state.View().Members {
		if m.HoldsShare {
			ids = append(ids, m.ID)
		}
	}
	return ids[:c.genesis.Size().Quorum()]
}

// handoff deals, ends the epoch and gives the eligible replicas their shares.
func (c *cluster) handoff() {
	c.t.Helper()
	require.Equal(c.t, PhaseDealing, c.state.View().Phase)
	dealings, ops := c.deal(c.dealers()...)
	c.accepted(ops...)
	require.True(c.t, c.state.HandoffReady())
	c.endEpoch(dealings)
}

func (c *cluster) endEpoch(dealings map[int]*threshold.Dealing) {
	c.t.Helper()
	eligible := c.state.View().Eligible
	before := c.state.Membership().GroupKey
	c.nextBlock()
	c.state.EndEpoch(c.tip)
	c.twin.EndEpoch(c.tip)
	c.compare()
	c.combine(dealings, eligible)
	after := c.state.Membership().GroupKey
	require.Equal(c.t, c.sharing.GroupKey().Bytes(), after)
	if before != nil {
		require.Equal(c.t, before, after)
	}
	for id, key := range c.nextKeys {
		if key.Public().(ed25519.PublicKey).Equal(c.state.Membership().Member(id).EpochKey) {
			c.epochKeys[id] = key
		}
	}
}

func (c *cluster) combine(dealings map[int]*threshold.Dealing, eligible []bft.ReplicaID) {
	c.t.Helper()
	certified, err := thresholdtest.Certified(dealings)
	require.NoError(c.t, err)
	var transition *threshold.Transition
	if c.sharing == nil {
		transition, err = threshold.KeyGeneration(certified...)
	} else {
		transition, err = threshold.Resharing(c.sharing, certified...)
	}
	require.NoError(c.t, err)
	c.sharing, c.shares = transition.Sharing(), map[bft.ReplicaID]*threshold.Share{}
	for _, id := range eligible {
		parts := map[int]*threshold.Part{}
		for dealer, d := range dealings {
			parts[dealer], err = d.Part(int(id))
			require.NoError(c.t, err)
		}
		c.shares[id], err = transition.Share(parts)
		require.NoError(c.t, err)
	}
}

// inEpoch1 is a cluster that has generated its group key.
func inEpoch1(t *testing.T, options ...option) *cluster {
	t.Helper()
	c := newCluster(t, options...)
	c.block()
	c.handoff()
	return c
}

func (c *cluster) phase() Phase { return c.state.View().Phase }

func (c *cluster) holders() []bft.ReplicaID {
	var ids []bft.ReplicaID
	for _, m := range c.state.View().Members {
		if m.HoldsShare {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

func without(ids []bft.ReplicaID, id bft.ReplicaID) []bft.ReplicaID {
	return slices.DeleteFunc(slices.Clone(ids), func(x bft.ReplicaID) bool { return x == id })
}

// presence is what a replica shows of the boot it is in.
func (c *cluster) presence(id bft.ReplicaID) *Present {
	c.t.Helper()
	p, err := attest.NewPresence(rand.Reader, c.challenge(id), c.identities[id], c.tpms[id].quote)
	require.NoError(c.t, err)
	return &Present{p}
}
