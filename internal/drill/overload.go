package drill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/actor"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/internal/load"
	"github.com/reseal-bft/reseal/internal/stage"
)

// overloads are the drills of clients that ask too much, and of disks that are too small. Beside
// each, well-behaved clients are measured before, during and after.
var overloads = []Drill{
	{
		Name: "greedy-client", keystore: cluster.File, size: bft.Size{F: 1}, play: greedyClient,
		Summary: "a client has as many megabytes under way as its session bears: the others have their share meanwhile, and everything at once when it stops",
	},
	{
		Name: "silent-connections", keystore: cluster.File, size: bft.Size{F: 1}, play: silentConnections,
		Summary: "somebody opens more connections to every replica than it has room for, and says nothing on them: clients get in all the same",
	},
	{
		Name: "huge-results", keystore: cluster.File, size: bft.Size{F: 1}, play: hugeResults,
		Summary: "small requests ask for gigabytes of results: no replica takes more memory than it may, and the others are served",
	},
	{
		Name: "every-budget", keystore: cluster.File, size: bft.Size{F: 1}, actors: true, play: everyBudget,
		Summary: "a Byzantine replica and clients of every bad kind fill every queue at once: no replica takes more memory than its limit, and everybody else is answered",
	},
	{
		Name: "full-disk", keystore: cluster.File, size: bft.Size{F: 1}, play: fullDisk,
		Summary: "the disk of a replica is full: it says so and harms nobody; with room again it is back",
	},
	{
		Name: "big-values-catch-up", keystore: cluster.File, size: bft.Size{F: 1}, play: bigValuesCatchUp,
		Summary: "a replica was away while large values were written: it catches up, and nobody notices",
	},
}

// neighbourly is what well-behaved clients ask for: little, and at a steady rate.
var neighbourly = load.Plan{Clients: 4, Rate: 20, Reads: 0.5, Values: load.Exactly(128), Envelope: load.Exactly(1), Keys: 1000, Timeout: time.Minute}

// What well-behaved clients may notice of a bad one: every operation is answered, and nine of ten
// in at most twice the time that nine of ten took without it; but for a part that no person and no
// timeout notices.
const (
	noticed = 2
	unnoted = 100 * time.Millisecond
)

// strangers makes clients that the stage does not know.
func (r *Rehearsal) strangers(count int) (stores []load.Store, closeAll func(), err error) {
	var clients []load.Client
	closeAll = func() {
		for _, c := range clients {
			_ = c.Close() // nothing is in flight
		}
	}
	for range count {
		c, err := r.Control.NewClient()
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		c.Ordered = false
		clients, stores = append(clients, c), append(stores, c)
	}
	return stores, closeAll, nil
}

// measure asks as well-behaved clients do, which come anew each time.
func (r *Rehearsal) measure(ctx context.Context, span time.Duration) (*load.Report, error) {
	plan := neighbourly
	plan.Duration = span
	stores, closeStores, err := r.strangers(plan.Clients)
	if err != nil {
		return nil, err
	}
	defer closeStores()
	report, err := load.Run(ctx, load.Options{Plan: plan, Stores: stores, Show: r.Show})
	return report, errors.Join(err, ctx.Err())
}

// beside measures before, while and after something else happens, and checks that those who are
// measured hardly notice.
func (r *Rehearsal) beside(ctx context.Context, what string, bad func(context.Context, *Rehearsal) error) error {
	const span = 15 * time.Second
	before, err := r.measure(ctx, span)
	if err != nil {
		return err
	}
	r.Show.Event("before: %s", inWords(before))
	spoiling, stop := context.WithCancel(ctx)
	defer stop()
	var group errgroup.Group
	group.Go(func() error { return bad(spoiling, r) })
	if err := r.Pass(ctx, 10*time.Second); err != nil { // it is under way by then, its connections made
		return err
	}
	during, err := r.measure(ctx, span)
	stop()
	if err := errors.Join(err, group.Wait()); err != nil {
		return err
	}
	after, err := r.measure(ctx, span)
	if err != nil {
		return err
	}
	r.compare(before, during, "beside "+what)
	r.compare(before, after, "after "+what)
	return nil
}

func (r *Rehearsal) compare(before, now *load.Report, when string) {
	held := now.Failed() == nil
	for _, pair := range [][2]*load.Account{{&before.Reads, &now.Reads}, {&before.Writes, &now.Writes}} {
		was, is := pair[0], pair[1]
		held = held && is.P50 <= tolerable(was.P50) && is.P90 <= tolerable(was.P90)
	}
	r.Check(held, "well-behaved clients hardly notice, "+when, "%s (before: %s)%s", inWords(now), inWords(before), failure(now))
}

// failure says what was not as it should be, to stand behind other words.
func failure(r *load.Report) string {
	if err := r.Failed(); err != nil {
		return "; " + err.Error()
	}
	return ""
}

// tolerable is what a latency may become, in milliseconds.
func tolerable(was float64) float64 {
	return max(noticed*was, was+float64(unnoted)/float64(time.Millisecond))
}

func inWords(r *load.Report) string {
	return fmt.Sprintf("reads %.0f/%.0f/%.0f ms, writes %.0f/%.0f/%.0f ms (p50/p90/p99), %d of %d failed",
		r.Reads.P50, r.Reads.P90, r.Reads.P99, r.Writes.P50, r.Writes.P90, r.Writes.P99,
		r.Reads.Failed+r.Writes.Failed, r.Reads.Operations+r.Writes.Operations+r.Reads.Failed+r.Writes.Failed)
}

// fits checks that no honest replica has ever had more memory than its limit.
func (r *Rehearsal) fits() error {
	most, limit := int64(0), cluster.DefaultConfig.MemoryLimitMiB
	for _, m := range r.Machines {
		if r.liars[m.ID] {
			continue
		}
		pid, err := processOf(m.Dir)
		if err != nil {
			return err
		}
		peak, err := memoryMiB(pid, "VmHWM:")
		if err != nil {
			return err
		}
		most = max(most, peak)
	}
	r.Check(most <= limit, "no replica took more memory than its limit", "at most %d MiB of %d", most, limit)
	return nil
}

// processOf finds the process of a replica, below what launched it.
func processOf(dir cluster.ReplicaDir) (int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	runs := func(line []byte) bool {
		return bytes.Contains(line, []byte("\x00replica\x00--dir\x00"+string(dir)+"\x00")) ||
			bytes.Contains(line, []byte("\x00actor\x00--dir\x00"+string(dir)+"\x00"))
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline")); err == nil && runs(line) {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("no process runs %s", dir)
}

// memoryMiB is the memory that a process has resident (VmRSS:) or the most that it ever had (VmHWM:).
func memoryMiB(pid int, which string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, found := strings.CutPrefix(line, which); found {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kb >> 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no %s", pid, which)
}

func greedyClient(ctx context.Context, r *Rehearsal) error {
	if err := r.beside(ctx, "a client with 64 MB under way", greed); err != nil {
		return err
	}
	return r.fits()
}

func silentConnections(ctx context.Context, r *Rehearsal) error {
	if err := r.beside(ctx, fmt.Sprintf("%d silent connections to each replica", silent), silence); err != nil {
		return err
	}
	return r.fits()
}

func hugeResults(ctx context.Context, r *Rehearsal) error {
	if err := r.beside(ctx, "requests for 4 GB each", hugeReads); err != nil {
		return err
	}
	return r.fits()
}

// everyBudget has what each budget is there against happen at once.
func everyBudget(ctx context.Context, r *Rehearsal) error {
	liar := r.Machines[1]
	r.liars[liar.ID] = true
	flood := func(ctx context.Context, r *Rehearsal) error {
		if err := r.direct(liar.ID, actor.Conduct{Flood: true}); err != nil {
			return err
		}
		var bad errgroup.Group
		for range 3 {
			bad.Go(func() error { return greed(ctx, r) })
		}
		for _, one := range []func(context.Context, *Rehearsal) error{hugeReads, silence, unfinished} {
			bad.Go(func() error { return one(ctx, r) })
		}
		return errors.Join(bad.Wait(), r.direct(liar.ID, actor.Conduct{}))
	}
	before, err := r.measure(ctx, 10*time.Second)
	if err != nil {
		return err
	}
	spoiling, stop := context.WithCancel(ctx)
	defer stop()
	var group errgroup.Group
	group.Go(func() error { return flood(spoiling, r) })
	during, err := r.measure(ctx, 40*time.Second)
	stop()
	if err := errors.Join(err, group.Wait()); err != nil {
		return err
	}
	r.Check(during.Failed() == nil, "every operation of the well-behaved clients is answered", "%s%s", inWords(during), failure(during))
	if err := r.fits(); err != nil {
		return err
	}
	if err := r.Pass(ctx, 15*time.Second); err != nil { // what they have left in the pools is ordered
		return err
	}
	after, err := r.measure(ctx, 15*time.Second)
	if err != nil {
		return err
	}
	r.compare(before, after, "when it is over")
	return nil
}

// diskMiB is the size of the disk that becomes full: room for a while of load beside the 64 that a
// replica wants free at its start.
const diskMiB = 256

// afterCrash is how long the views take that a replica led when it stopped: a timeout or two.
const afterCrash = 3 * time.Second

func fullDisk(ctx context.Context, r *Rehearsal) error {
	m := r.Machines[len(r.Machines)-1]
	before, err := r.measure(ctx, 10*time.Second)
	if err != nil {
		return err
	}
	m.Crash()
	unmount, err := smallDisk(m.Dir.Store(), filepath.Join(r.Scratch, "moved"))
	if err != nil {
		return err
	}
	defer unmount()
	if err := m.Boot(r.Program, r.Program); err != nil {
		return err
	}
	if err := r.everybodyVotes(ctx, time.Minute); err != nil {
		return err
	}
	filler := filepath.Join(m.Dir.Store(), "filler")
	if err := fill(filler); err != nil {
		return err
	}
	r.Show.Event("the disk of machine %d, %d MB, is full", m.ID, diskMiB)
	words, err := m.AwaitStop(ctx)
	if err != nil {
		return err
	}
	r.Check(strings.Contains(words, "the disk is full"), "the replica stops, and says why", "%s", words)
	// A view that it led when it stopped takes its timeout, as after any crash: that is not measured.
	if err := r.Pass(ctx, afterCrash); err != nil {
		return err
	}
	during, err := r.measure(ctx, 10*time.Second)
	if err != nil {
		return err
	}
	r.compare(before, during, "while the disk of one replica is full")
	if err := m.Boot(r.Program, r.Program); err != nil {
		return err
	}
	words, err = m.AwaitStop(ctx)
	if err != nil {
		return err
	}
	r.Check(strings.Contains(words, "the disk is full"), "started again it says so again", "%s", words)

	if err := os.Remove(filler); err != nil {
		return err
	}
	if err := m.Boot(r.Program, r.Program); err != nil {
		return err
	}
	if err := r.everybodyVotes(ctx, time.Minute); err != nil {
		return err
	}
	after, err := r.measure(ctx, 10*time.Second)
	if err != nil {
		return err
	}
	r.compare(before, after, "when there is room again")
	m.Crash() // the disk goes away below it; nobody needs it for what is read back
	return nil
}

// smallDisk puts a directory on a small disk of its own, with what is in it. It takes root's rights.
func smallDisk(dir, moved string) (unmount func(), err error) {
	if err := os.Rename(dir, moved); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", diskMiB)); err != nil {
		return nil, fmt.Errorf("mount a small disk for the replica: %w: run this drill as root", err)
	}
	unmount = func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }
	if err := os.CopyFS(dir, os.DirFS(moved)); err != nil && !errors.Is(err, fs.ErrExist) {
		unmount()
		return nil, err
	}
	return unmount, nil
}

// fill writes a file until there is no more room.
func fill(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for block := make([]byte, 1<<16); len(block) > 0; {
		if _, err := f.Write(block); errors.Is(err, unix.ENOSPC) {
			block = block[:len(block)/2]
		} else if err != nil {
			return err
		}
	}
	return nil
}

func bigValuesCatchUp(ctx context.Context, r *Rehearsal) error {
	const values, size = 200, 1_000_000
	m := r.Machines[len(r.Machines)-1]
	before, err := r.measure(ctx, 10*time.Second)
	if err != nil {
		return err
	}
	m.Crash()
	r.Show.Event("replica %d is away while %d MB are written", m.ID, values*size/1_000_000)
	for i := range values {
		if err := r.Clients[0].Put(ctx, []load.Pair{{Key: fmt.Sprintf("big/%d", i), Value: bytes.Repeat([]byte{byte(i)}, size)}}); err != nil {
			return err
		}
	}
	if err := m.Boot(r.Program, r.Program); err != nil {
		return err
	}
	began := time.Now()
	during, err := r.measure(ctx, 10*time.Second)
	if err != nil {
		return err
	}
	r.compare(before, during, "while a replica catches up over large values")
	seen, err := r.Await(ctx, "the replica votes", func(v *stage.Sight) bool { return v.Votes(m.ID, v.Epoch) })
	if err != nil {
		return err
	}
	r.Check(true, "the replica catches up and votes", "in epoch %d, at most %.0f s after it was back", seen.Epoch, time.Since(began).Seconds())
	return r.fits()
}
