package stage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/client"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/internal/load"
	"github.com/reseal-bft/reseal/internal/process"
	"github.com/reseal-bft/reseal/internal/progress"
	"github.com/reseal-bft/reseal/internal/trace"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// RoundDeadline is the time that a replica has to reboot and attest: on this machine it takes a second.
const RoundDeadline = 30 * time.Second

// patience bounds every wait on a stage.
const patience = 90 * time.Second

// Options say what is put on the stage.
type Options struct {
	Size     bft.Size
	Keystore cluster.Kind
	// Dir is where the cluster lives, and must be empty or not exist; empty: a new temporary
	// directory. Keep leaves it there.
	Dir  string
	Keep bool
	// Program is the reseal binary: launcher, replica, and what is measured.
	Program string
	// RoundDeadline of the cluster; 0: [RoundDeadline].
	RoundDeadline time.Duration
	// Traces records what the consensus core of every replica does, see [Stage.Verdict].
	Traces bool
	// Show tells what happens.
	Show *progress.Display
}

// Stage is a cluster of processes. Used by one goroutine; the load runs beside it.
type Stage struct {
	Options
	Dir      cluster.Dir
	Scratch  string // backups and tampered binaries
	Program  string // the copy of the program that is measured and run
	Machines []*Machine
	Control  *Control // nil before the group key is there
	Load     *Load
	Clients  []load.Client
	// Waiting is called every 100 ms during a wait; nil: nothing is.
	Waiting func()

	group    process.Group
	loads    *errgroup.Group
	loading  context.Context // of the clients' work; its cause is the first failure
	stopLoad context.CancelFunc
	remove   func() error
}

// New makes the directory of a cluster, and nothing else yet. The caller closes the stage.
func New(options Options) (*Stage, error) {
	s := &Stage{Options: options, Load: NewLoad()}
	if s.RoundDeadline == 0 {
		s.RoundDeadline = RoundDeadline
	}
	return s, s.makeDirectory(options.Dir)
}

// makeDirectory makes the directory of the cluster, and remembers how to remove all that was made.
func (s *Stage) makeDirectory(named string) (err error) {
	own := named == ""
	if own {
		if named, err = os.MkdirTemp("", "reseal-"); err != nil {
			return err
		}
	}
	if named, err = filepath.Abs(named); err != nil {
		return err
	}
	entries, err := os.ReadDir(named)
	if err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty: name a new directory with --dir", named)
	}
	made := []string{named}
	s.Dir, s.Scratch = cluster.Dir(filepath.Join(named, "cluster")), filepath.Join(named, "scratch")
	if err == nil && !own { // it was there before, and stays
		made = []string{string(s.Dir), s.Scratch}
	}
	s.remove = func() (err error) {
		if s.Keep {
			s.Show.Event("the cluster is kept in %s", named)
			return nil
		}
		for _, path := range made {
			err = errors.Join(err, os.RemoveAll(path))
		}
		return err
	}
	return os.MkdirAll(s.Scratch, 0o700)
}

// Create copies the program, so that what is measured stays what runs, makes the cluster for it,
// and plugs its machines in.
func (s *Stage) Create(ctx context.Context) error {
	s.Program = filepath.Join(s.Scratch, "reseal")
	text, err := os.ReadFile(s.Options.Program)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.Program, text, 0o700); err != nil {
		return err
	}
	_, err = cluster.Create(ctx, cluster.Plan{
		Dir: s.Dir, Size: s.Size, Keystore: s.Keystore, Binary: s.Program, Config: cluster.ConfigFor(s.Size), Rand: rand.Reader,
		RoundDeadline: s.RoundDeadline,
	})
	if err != nil {
		return err
	}
	for id := bft.ReplicaID(1); int(id) <= s.Size.N(); id++ {
		m, err := PlugIn(ctx, &s.group, id, s.Dir.Replica(id))
		if m != nil {
			m.traces = s.traces(id)
			s.Machines = append(s.Machines, m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// traces is where a replica's lives are recorded.
func (s *Stage) traces(id bft.ReplicaID) string {
	if !s.Traces {
		return ""
	}
	return filepath.Join(s.Scratch, fmt.Sprintf("traces-%d", id))
}

// Verdict stops all replicas, and has what those that are honest did in all their lives judged by
// the monitor.
func (s *Stage) Verdict(honest func(*Machine) bool) (verdict trace.Verdict, err error) {
	for _, m := range s.Machines {
		m.Stop()
	}
	for _, m := range s.Machines {
		if honest(m) {
			err = errors.Join(err, verdict.JudgeAll(m.traces))
		}
	}
	return verdict, err
}

// Boot boots every machine for the first time.
func (s *Stage) Boot() error {
	for _, m := range s.Machines {
		if err := m.Boot(s.Program, s.Program); err != nil {
			return err
		}
	}
	return nil
}

// AwaitGroupKey waits for epoch 1, whose certificates are under the generated group key.
func (s *Stage) AwaitGroupKey(ctx context.Context) (*Sight, error) {
	err := s.Until(ctx, "the replicas answer", func(ctx context.Context) (done bool, err error) {
		s.Control, err = Connect(ctx, s.Dir)
		if errors.Is(err, client.ErrNoGroupKey) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return nil, err
	}
	return s.Await(ctx, "the replicas generate the group key", func(v *Sight) bool {
		return v.Epoch >= 1 && v.GroupKey != "" && v.Holders() >= s.Size.Quorum()
	})
}

// Close ends everything that was started, and removes the directory unless it is kept.
func (s *Stage) Close() error {
	s.Show.Close()
	if s.stopLoad != nil {
		s.stopLoad()
		_ = s.loads.Wait() // what it says was said already, or is due to the end itself
	}
	for _, c := range s.Clients {
		_ = c.Close() // nothing is in flight
	}
	if s.Control != nil {
		s.Control.Close()
	}
	s.group.Close(grace)
	var err error
	for _, m := range s.Machines {
		err = errors.Join(err, m.Unplug())
	}
	return errors.Join(err, s.remove())
}

// errDied says that a replica ended that should run; Explain tells which, and why.
var errDied = errors.New("a replica died")

// Explain names what is behind an error: an interruption, a replica that died, or clients that failed.
func (s *Stage) Explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("interrupted: everything that was started is stopped")
	}
	var reasons []error
	for _, m := range s.Machines {
		reasons = append(reasons, m.Died())
	}
	if s.loading != nil {
		if cause := context.Cause(s.loading); !errors.Is(cause, context.Canceled) {
			reasons = append(reasons, cause)
		}
	}
	if why := errors.Join(reasons...); errors.Is(err, errDied) && why != nil {
		return why
	}
	return errors.Join(append([]error{err}, reasons...)...)
}

// Await waits until the state that f + 1 replicas agree on is as wanted. When it gives up, it says
// what was seen last.
func (s *Stage) Await(ctx context.Context, what string, wanted func(*Sight) bool) (*Sight, error) {
	return s.await(ctx, what, func(v *Sight) (bool, error) { return wanted(v), nil })
}

// await is [Stage.Await] of something that may also have become impossible.
func (s *Stage) await(ctx context.Context, what string, wanted func(*Sight) (bool, error)) (seen *Sight, err error) {
	var blind error // why nothing was seen by the last look
	err = s.Until(ctx, what, func(ctx context.Context) (bool, error) {
		v, err := s.Control.Look(ctx)
		if err != nil {
			if ctx.Err() == nil || blind == nil { // the look that the end of the wait cuts off says least
				blind = err
			}
			return false, nil
		}
		seen, blind = v, nil
		return wanted(v)
	})
	if err != nil && blind != nil {
		err = fmt.Errorf("%w; the last look: %w", err, blind)
	}
	if err != nil && seen != nil {
		err = fmt.Errorf("%w; seen last: %v", err, seen)
	}
	return seen, err
}

// Until tries something until it is done, has failed, or time is up. It ends early when a replica
// that should run dies.
func (s *Stage) Until(ctx context.Context, what string, try func(context.Context) (done bool, err error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("waited in vain until "+what))
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		if done, err := try(ctx); done || err != nil {
			return err
		}
		for _, m := range s.Machines {
			if m.Died() != nil {
				return errDied
			}
		}
		select {
		case <-ticker.C:
			s.tick()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *Stage) tick() {
	if s.Waiting != nil {
		s.Waiting()
	}
}

// Pass lets time pass, while the load runs.
func (s *Stage) Pass(ctx context.Context, span time.Duration) error {
	end := time.After(span)
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-end:
			return nil
		case <-ticker.C:
			s.tick()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Recruit makes clients.
func (s *Stage) Recruit(clients int) error {
	for i := range clients {
		c, err := s.Control.NewClient()
		if err != nil {
			return fmt.Errorf("client %d: %w", i+1, err)
		}
		s.Clients = append(s.Clients, c)
	}
	return nil
}

// StartLoad lets the clients write and read until [Stage.StopLoad].
func (s *Stage) StartLoad(ctx context.Context) {
	loading, stop := context.WithCancel(ctx)
	s.loads, s.loading = errgroup.WithContext(loading)
	s.stopLoad = stop
	s.Load.Meter.Start()
	s.loads.Go(func() error { return s.Load.Work(s.loading, s.stores()) })
}

// stores are the clients as the load uses them.
func (s *Stage) stores() (out []load.Store) {
	for _, c := range s.Clients {
		out = append(out, c)
	}
	return out
}

// StopLoad ends the load, reads every acknowledged write back, and returns how many there were and
// how many are lost.
func (s *Stage) StopLoad(ctx context.Context) (acknowledged, lost int, err error) {
	s.Load.Meter.Stop()
	s.stopLoad()
	if err := s.loads.Wait(); err != nil {
		return 0, 0, err
	}
	acknowledged = s.Load.Ledger.Count()
	s.Show.Event("reading back %d acknowledged writes", acknowledged)
	lost, err = s.Load.ReadBack(ctx, s.stores(), func(read int) { s.Show.Bar(read, acknowledged, "read back") })
	return acknowledged, lost, err
}

// OpenRound orders a recovery round and waits until it is known who is due, and until those who are
// up have shown the boot that they are in: a reboot after that proves itself. A round that does not
// wait for that long is an error at once: who was to reboot in it has missed it.
func (s *Stage) OpenRound(ctx context.Context, due ...bft.ReplicaID) (*Sight, error) {
	before, err := s.OrderRound(ctx, due...)
	if err != nil {
		return nil, err
	}
	return s.await(ctx, "the round opens", func(v *Sight) (bool, error) { return v.opened(&before.State) })
}

// OrderRound orders a recovery round, and returns what was seen before it. It waits for nobody.
func (s *Stage) OrderRound(ctx context.Context, due ...bft.ReplicaID) (before *Sight, err error) {
	before, err = s.Await(ctx, "the replicas tell their state", func(*Sight) bool { return true })
	if err != nil {
		return nil, err
	}
	return before, s.Control.Order(ctx, &governance.StartRound{Due: due})
}

// AwaitEpoch waits until an epoch has begun.
func (s *Stage) AwaitEpoch(ctx context.Context, epoch bft.Epoch) (*Sight, error) {
	return s.Await(ctx, fmt.Sprintf("epoch %d begins", epoch), func(v *Sight) bool { return v.Epoch >= epoch })
}

// AwaitBack checks that the new epoch has a share for a replica, and waits until it votes with it.
func (s *Stage) AwaitBack(ctx context.Context, m *Machine, after *Sight) error {
	if now := after.Member(m.ID); !now.HoldsShare {
		return fmt.Errorf("replica %d has no share of epoch %d: %s", m.ID, after.Epoch, now.Status)
	}
	_, err := s.Await(ctx, fmt.Sprintf("replica %d votes in epoch %d", m.ID, after.Epoch), func(v *Sight) bool { return v.Votes(m.ID, after.Epoch) })
	return err
}

// Reboot power-cycles machines that have crashed, and boots them.
func (s *Stage) Reboot(machines ...*Machine) error {
	for _, m := range machines {
		if err := s.RebootWith(m, s.Program); err != nil {
			return err
		}
	}
	return nil
}

// RebootWith reboots a machine into another program.
func (s *Stage) RebootWith(m *Machine, program string) error {
	if err := m.PowerCycle(); err != nil {
		return err
	}
	return m.Boot(s.Program, program)
}

// MachinesOf returns the machines of replicas.
func (s *Stage) MachinesOf(ids []bft.ReplicaID) []*Machine {
	var machines []*Machine
	for _, id := range ids {
		machines = append(machines, s.Machines[id-1])
	}
	return machines
}

// LeadersBut returns the replicas that lead in this epoch, whose crash hurts most, but for those
// who are away anyway.
func LeadersBut(leaders, away []bft.ReplicaID) []bft.ReplicaID {
	return slices.DeleteFunc(slices.Clone(leaders), func(id bft.ReplicaID) bool { return slices.Contains(away, id) })
}
