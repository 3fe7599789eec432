package wholesim

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"hash"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/recovery/handoff"
)

// cluster is a simulated cluster of whole nodes.
type cluster struct {
	options  Options
	seed     uint64
	profile  profile
	plan     *plan
	genesis  *governance.Genesis
	operator ed25519.PrivateKey
	net      *network
	machines []*machine
	clients  []*client
	judge    *judge
	started  time.Time
	closing  sync.WaitGroup // processes that are being closed
	chaotic  atomic.Bool    // the faults are on
	barred   int            // correct replicas that the faults left without a vote

	mu    sync.Mutex
	rng   *mathrand.Rand
	lines []string  // the last of the trace
	sum   hash.Hash // of all that happened
}

// pick returns a random duration.
func (c *cluster) pick(low, high time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return low + time.Duration(c.rng.Int64N(int64(high-low)+1))
}

func newCluster(seed uint64, o Options) (*cluster, error) {
	c := &cluster{options: o, seed: seed, rng: mathrand.New(mathrand.NewPCG(seed, 3)), started: time.Now(), sum: sha256.New()}
	c.judge = newJudge(c)
	c.plan = newPlan(seed, o)
	c.profile = c.plan.profile
	public, operator, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	c.operator = operator
	c.genesis = &governance.Genesis{
		Name: "simulated", Created: time.Now().UTC().Truncate(time.Second), F: o.F, C: o.C,
		Operators: []ed25519.PublicKey{public}, OperatorQuorum: 1,
		Attestation: attest.Attestation{
			Required: true, PCRs: []int{bootPCR},
			Approved: []attest.ApprovedState{{Name: "v1", PCRs: map[int]attest.Measurement{bootPCR: bootValue}}},
		},
		RoundInterval: governance.Duration(c.profile.interval), AllowWear: true, RoundDeadline: governance.Duration(c.profile.deadline),
		Window: c.plan.window, Timeouts: c.profile.timeouts,
	}
	for i := range c.genesis.Size().N() {
		if err := c.addMachine(bft.ReplicaID(i + 1)); err != nil {
			return nil, err
		}
	}
	if err := c.approveBoot(); err != nil {
		return nil, err
	}
	if err := c.genesis.Validate(); err != nil {
		return nil, err
	}
	for id, kinds := range c.plan.byzantine {
		m := c.machine(id)
		m.attack = newAttack(c, m, kinds)
	}
	c.net = newNetwork(c.genesis.ClusterID(), seed)
	for i := range 3 {
		k, err := c.newClient(uint32(i+1), seed)
		if err != nil {
			return nil, err
		}
		c.clients = append(c.clients, k)
	}
	return c, nil
}

// approveBoot approves the machines' boot state towards their TPMs.
func (c *cluster) approveBoot() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if c.genesis.BootApproval, err = x509.MarshalPKIXPublicKey(&key.PublicKey); err != nil {
		return err
	}
	state := &c.genesis.Attestation.Approved[0]
	state.Approvals, err = c.genesis.Approve(rand.Reader, key, state, func(bft.ReplicaID) uint64 { return 0 })
	return err
}

func (c *cluster) addMachine(id bft.ReplicaID) error {
	device, err := newDevice()
	if err != nil {
		return err
	}
	m := &machine{c: c, id: id, disk: newDisk(c.seed<<8 + uint64(id)), device: device, wake: make(chan struct{}, 1)}
	c.machines = append(c.machines, m)
	key, err := handoff.SealGenesisKey(&session{device: device, before: func(string) error { return nil }})
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(&device.identity.PublicKey)
	if err != nil {
		return err
	}
	c.genesis.Members = append(c.genesis.Members, governance.GenesisMember{
		ID: id, Address: fmt.Sprintf("10.0.0.%d:7000", id), Identity: der, EpochKey: key,
		AttestationKey: device.tpm.public(), StorageRoot: device.tpm.public(), ResetCount: device.tpm.resets(),
	})
	return nil
}

// keptLines bounds the trace that is shown with a failure.
const keptLines = 300

// line makes a line of the trace.
func (c *cluster) line(m *machine, format string, args ...any) string {
	who := "   "
	if m != nil {
		who = fmt.Sprintf("%3d", m.id)
	}
	return fmt.Sprintf("%12.3fs %s  %s", time.Since(c.started).Seconds(), who, fmt.Sprintf(format, args...))
}

// note writes a line of the trace.
func (c *cluster) note(m *machine, format string, args ...any) {
	line := c.line(m, format, args...)
	c.mu.Lock()
	if len(c.lines) == keptLines {
		c.lines = c.lines[1:]
	}
	c.lines = append(c.lines, line)
	c.sum.Write([]byte(line))
	c.mu.Unlock()
	if c.options.Trace != nil {
		c.options.Trace(line)
	}
}

// hear adds what a replica sends to the sum of all that happened.
func (c *cluster) hear(m *machine, frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.sum, "%d %d %d ", time.Since(c.started), m.id, len(frame))
	c.sum.Write(frame)
}

// correct reports whether a machine's replica keeps the protocol.
func (m *machine) correct() bool { return m.attack == nil }

// counts reports whether a machine's replica is expected to work: it is correct, and not switched off.
func (m *machine) counts() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.correct() && !m.off
}

// watch looks at all replicas now and then, as operators and their watchdogs do: a replica that is
// due is rebooted. It ends with ctx.
func (c *cluster) watch(ctx context.Context) {
	every := time.Duration(c.profile.timeouts.View) / 2
	for pause(ctx, every) == nil {
		for _, m := range c.machines {
			c.look(m)
		}
	}
}

func (c *cluster) look(m *machine) {
	p, node := m.running()
	if node == nil {
		return
	}
	info := node.Info()
	if m.correct() {
		if info.Epoch > 0 && info.View.GroupKey != "" {
			c.judge.key(m, info.View.GroupKey)
		}
		c.judge.state(m, info.Height, info.Root)
	}
	v := info.View
	me := v.Member(m.id)
	m.mu.Lock()
	// It is rebooted when it has shown the boot that it is in: then the next one proves itself.
	reboot := (m.correct() || !m.attack.does("lapse")) && v.Phase == governance.PhaseAttesting && me.Due && me.Awaited.Shown && v.Round > m.round && m.process == p
	if reboot {
		m.round = v.Round
	}
	m.mu.Unlock()
	if reboot {
		c.note(m, "is due in round %d and rebooted", v.Round)
		m.reboot(100, c.pick(time.Duration(c.profile.timeouts.View), 3*time.Duration(c.profile.timeouts.View)))
	}
}

func (c *cluster) machine(id bft.ReplicaID) *machine { return c.machines[id-1] }

// describe writes where everybody stands into the trace.
func (c *cluster) describe() {
	for _, m := range c.machines {
		_, node := m.running()
		if node == nil {
			m.mu.Lock()
			c.note(m, "does not run: off: %t, %s", m.off, m.failed)
			m.mu.Unlock()
			continue
		}
		i := node.Info()
		v := i.View
		epoch, _ := m.device.held()
		c.note(m, "epoch %d, view %d, height %d, certified %d, voter %t, diverged %t, device in epoch %d, connected %v; %v round %d, due %v, attested %v, refused %v, eligible %v, %d dealings, deadline %s, clock %s",
			i.Epoch, i.Status.View, i.Height, i.CertifiedHeight, i.Voter, i.Diverged, epoch, i.Connected,
			v.Phase, v.Round, v.Due, v.Attested, v.Refused, v.Eligible, len(v.Dealings), time.UnixMilli(v.Deadline).UTC().Format(time.TimeOnly), m.wall().UTC().Format(time.TimeOnly))
	}
}
