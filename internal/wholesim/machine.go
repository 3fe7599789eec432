package wholesim

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/monitor"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/store"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// machine is what a replica runs on: it outlives the replica's processes.
type machine struct {
	c      *cluster
	id     bft.ReplicaID
	disk   *disk
	device *device
	skew   atomic.Int64 // of its wall clock, nanoseconds
	attack *attack      // nil: correct
	// spoiled: something on the disk was damaged.
	spoiled atomic.Bool

	mu      sync.Mutex
	process *process      // nil: none runs
	wake    chan struct{} // holds a token when what should run has changed
	downTil time.Time     // no process is started before
	off     bool          // no process is started
	copies  []*vfs.MemFS  // of the disk, as backups may have them
	cutOn   string        // a change of the device at which the power is cut
	failed  string        // why the last process ended by itself, or did not start
	round   governance.Round
	said    map[string]time.Time // log messages
}

// retention is short: whoever was away for a while finds the log cut, and needs a snapshot.
var retention = replica.Retention{Kept: 512, Leap: 128}

// process is one start of a node.
type process struct {
	m      *machine
	app    *journal
	node   atomic.Pointer[recovery.Node]
	since  time.Time
	dead   atomic.Bool // nothing that it does counts any more
	killed chan struct{}

	mu  sync.Mutex
	end *endpoint
}

var errDead = errors.New("the power is off")

// wall is the machine's wall clock.
func (m *machine) wall() time.Time {
	return time.Now().Round(0).Add(time.Duration(m.skew.Load()))
}

// run keeps a process running, as a service manager does, until ctx ends.
func (m *machine) run(ctx context.Context) {
	for ctx.Err() == nil {
		m.mu.Lock()
		wait, off := time.Until(m.downTil), m.off
		m.mu.Unlock()
		if off {
			wait = 24 * 365 * time.Hour
		}
		if off || wait > 0 {
			m.await(ctx, wait)
			continue
		}
		m.runProcess(ctx)
	}
}

// await waits until what should run may have changed.
func (m *machine) await(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-m.wake:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// restartPause is the time between a failure and the next start.
const restartPause = time.Second

func (m *machine) runProcess(ctx context.Context) {
	p := &process{m: m, since: time.Now(), killed: make(chan struct{})}
	p.app = newJournal(p.executed)
	m.mu.Lock()
	m.process = p
	m.mu.Unlock()
	err := p.start()
	node := p.node.Load()
	if err == nil {
		ended := make(chan error, 1)
		go func() { ended <- node.Wait() }()
		select {
		case err = <-ended:
		case <-p.killed:
		case <-ctx.Done():
		}
	}
	dead := p.dead.Swap(true)
	p.leave()
	if node != nil {
		m.c.closing.Go(func() { _ = node.Close() })
	}
	if !dead && errors.Is(err, store.ErrCorrupt) {
		m.moveAway(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.process = nil
	if !dead && ctx.Err() == nil {
		m.failed = "it ended"
		if err != nil {
			m.failed = err.Error()
		}
		m.c.note(m, "the process ended: %s", m.failed)
		m.disk.crash(100)
		m.downTil = time.Now().Add(restartPause)
	}
}

func (p *process) start() error {
	c := p.m.c
	keys := &session{device: p.m.device, before: p.before}
	observe := monitor.Observe(p.unjustified)
	if a := p.m.attack; a != nil {
		keys.learn, observe = a.learn, nil
	}
	node, err := recovery.Start(context.Background(), recovery.NodeConfig{
		Genesis: c.genesis, Self: p.m.id, Dir: storeDir, Keystore: keys,
		Application: p.app, Log: slog.New(&logger{m: p.m}),
		Network: p.join, FS: p.m.disk.mount(), Clock: p.m.wall, Retention: retention, Observe: observe,
	})
	if err != nil {
		return err
	}
	p.node.Store(node)
	return nil
}

// join connects the process with the network.
func (p *process) join(cfg transport.Config) (recovery.Network, error) {
	var sent func([]byte)
	if p.m.attack == nil {
		sent = func(frame []byte) { p.m.c.judge.sent(p.m, frame) }
	}
	end := p.m.c.net.join(cfg, p.m.attack, sent)
	p.mu.Lock()
	p.end = end
	p.mu.Unlock()
	if p.dead.Load() {
		end.leave()
	}
	return end, nil
}

func (p *process) leave() {
	p.mu.Lock()
	end := p.end
	p.mu.Unlock()
	if end != nil {
		end.leave()
	}
}

func (p *process) executed(height bft.Height, time int64, operations []bft.Operation) {
	if p.m.attack == nil && !p.dead.Load() {
		p.m.c.judge.executed(p.m, height, time, operations)
	}
}

// unjustified hears what the monitor of a correct replica's core finds: something that it does, and
// that nothing it has received and stored justifies.
func (p *process) unjustified(cfg bft.Config, sentence string) {
	if !p.dead.Load() {
		p.m.c.judge.fault("replica %d, in epoch %d, %s", cfg.Self, cfg.Epoch, sentence)
	}
}

// before is asked before every change of the device.
func (p *process) before(what string) error {
	m := p.m
	m.mu.Lock()
	cut := m.cutOn != "" && len(what) >= len(m.cutOn) && what[:len(m.cutOn)] == m.cutOn
	if cut {
		m.cutOn = ""
	}
	m.mu.Unlock()
	if cut && !p.dead.Load() {
		m.c.note(m, "the power goes at: %s", what)
		m.kill(p, 0, m.c.pick(time.Second, 20*time.Second))
	}
	if p.dead.Load() {
		return errDead
	}
	return nil
}

// kill ends a process at once; nil means the present one. Of what is not synced, the given share
// stays on the disk: all of it when only the process ends. The next process starts after the given
// time.
func (m *machine) kill(p *process, keptPercent int, down time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p == nil {
		p = m.process
	}
	m.downTil = time.Now().Add(down)
	signal(m.wake)
	if p == nil || p.dead.Swap(true) {
		return
	}
	p.leave() // nothing is said that the disk does not know of
	m.disk.crash(keptPercent)
	close(p.killed)
}

// reboot restarts the machine, which its TPM counts.
func (m *machine) reboot(keptPercent int, down time.Duration) {
	m.kill(nil, keptPercent, down)
	m.device.tpm.boot()
}

// moveAway does what the error of a damaged store says: the store goes, the mark beside it stays. A
// disk that no fault of the plan has touched has no damage.
func (m *machine) moveAway(why error) {
	if !m.spoiled.Load() {
		m.c.judge.fault("replica %d finds its store damaged, and nothing has damaged it: %v", m.id, why)
		return
	}
	m.c.note(m, "the damaged store is moved away")
	m.disk.crash(100)
	if err := m.disk.moveAway(); err != nil {
		m.c.judge.fault("the simulator cannot move a store away: %v", err)
	}
}

// spoil damages the disk of a machine that is down.
func (m *machine) spoil(how func() (string, error)) {
	m.spoiled.Store(true)
	what, err := how()
	if err != nil {
		m.c.judge.fault("the simulator cannot damage a disk: %v", err)
	}
	m.c.note(m, "damaged: %s", what)
}

// switchOff leaves the machine without a process from now on.
func (m *machine) switchOff() {
	m.mu.Lock()
	m.off = true
	m.mu.Unlock()
	m.kill(nil, 0, 0)
}

// running returns the process that runs and its node; nil when there is none.
func (m *machine) running() (*process, *recovery.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == nil || m.process.dead.Load() {
		return nil, nil
	}
	return m.process, m.process.node.Load()
}

// repeats reports whether a machine has just said the same. What an attack provokes all the time
// must not drown the rest.
func (m *machine) repeats(message string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.said == nil {
		m.said = make(map[string]time.Time)
	}
	last, ok := m.said[message]
	if ok && time.Since(last) < 5*time.Second {
		return true
	}
	m.said[message] = time.Now()
	return false
}

// logger puts what a node logs into the trace.
type logger struct {
	m     *machine
	attrs string
}

func (l *logger) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || l.m.c.options.Trace != nil
}

func (l *logger) Handle(_ context.Context, r slog.Record) error {
	if l.m.repeats(r.Message) {
		return nil
	}
	text := r.Message + l.attrs
	r.Attrs(func(a slog.Attr) bool {
		text += " " + a.String()
		return true
	})
	if r.Level < slog.LevelInfo { // only looked at in a trace, which changes nothing
		l.m.c.options.Trace(l.m.c.line(l.m, "%s: %s", r.Level, text))
		return nil
	}
	l.m.c.note(l.m, "%s: %s", r.Level, text)
	return nil
}

func (l *logger) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *l
	for _, a := range attrs {
		with.attrs += " " + a.String()
	}
	return &with
}

func (l *logger) WithGroup(string) slog.Handler { return l }
