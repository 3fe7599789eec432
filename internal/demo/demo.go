package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/internal/process"
	"github.com/reseal-bft/reseal/internal/progress"
)

// Options are what a person can choose.
type Options struct {
	Size     bft.Size
	Keystore cluster.Kind
	// Duration is how long the load runs undisturbed before the first recovery: the time of comparison.
	Duration time.Duration
	// Clients is the number of concurrent clients.
	Clients int
	// Input is the directory whose files are put into the store; empty: a default.
	Input string
	// Dir is where the cluster lives, and must be empty or not exist; empty: a new temporary directory. Keep leaves it there.
	Dir  string
	Keep bool
	// Program is the reseal binary: launcher, replica, and what is measured.
	Program string
	// Out is where the story is told.
	Out io.Writer
}

// Limits of what makes sense on one machine.
const (
	maxReplicas = 16
	maxClients  = 64
	maxDuration = time.Hour
)

// Validate refuses what cannot work, before anything is started.
func (o *Options) Validate() error {
	if err := o.Size.Validate(); err != nil {
		return err
	}
	switch {
	case o.Size.N() > maxReplicas:
		return fmt.Errorf("f=%d, c=%d make %d replicas, too many for the demonstration on one machine: choose at most %d", o.Size.F, o.Size.C, o.Size.N(), maxReplicas)
	case o.Clients < 1 || o.Clients > maxClients:
		return fmt.Errorf("--clients %d: choose 1 to %d", o.Clients, maxClients)
	case o.Duration <= 0 || o.Duration > maxDuration:
		return fmt.Errorf("--duration %v: choose up to %v", o.Duration, maxDuration)
	}
	return nil
}

// demo is a demonstration that runs. Used by one goroutine; the load runs beside it.
type demo struct {
	options  Options
	dir      cluster.Dir
	scratch  string // backups and tampered binaries
	program  string // the copy of the program that is measured and run
	source   string // the directory of the input
	input    []pair
	group    process.Group
	machines []*machine // by replica, from 0
	show     *progress.Display
	report   Report

	load     *load
	clients  []storeClient
	control  *control
	loads    *errgroup.Group
	loading  context.Context // of the clients' work; its cause is the first failure
	stopLoad context.CancelFunc
	quiet    rate // operations while nothing is being recovered
	healing  rate // and during the recoveries of act 3
	steps    int
	doing    string
}

// act is a part of the story.
type act struct {
	title string
	play  func(*demo, context.Context) error
	// needs says whether the act can be played; nil: always.
	needs func(*Options) bool
}

var acts = []act{
	{title: "A cluster without a trusted dealer", play: (*demo).startCluster},
	{title: "Real input, and clients that verify every reply", play: (*demo).startLoad},
	{title: "Every replica recovers, under load", play: (*demo).recoverAll},
	{title: "A tampered replica gets nothing", play: (*demo).tamperOne, needs: func(o *Options) bool { return o.Keystore == cluster.SWTPM }},
	{title: "A crash in the middle of a recovery", play: (*demo).crashDuringRecovery, needs: func(o *Options) bool { return o.Size.C > 0 }},
	{title: "The account", play: (*demo).settle},
}

// Run plays the demonstration. It returns a report as far as it came (complete if its Seconds are set), and an error unless everything
// held. Nothing is left running when it returns, whatever way it ends.
func Run(ctx context.Context, options Options) (report *Report, err error) {
	if err := options.Validate(); err != nil {
		return nil, err
	}
	d := &demo{options: options, show: progress.New(options.Out), load: &load{ledger: newLedger(), meter: newMeter()}}
	n := options.Size.N()
	d.report = Report{N: n, F: options.Size.F, C: options.Size.C, Keystore: string(options.Keystore), Recoveries: []Recovery{}}
	if d.source, d.input, err = findInput(options.Input); err != nil {
		return nil, err
	}
	remove, err := d.makeDirectory()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.cleanUp(), remove()) }()

	began := time.Now()
	number := 0
	for _, act := range acts {
		if act.needs != nil && !act.needs(&options) {
			continue
		}
		number++
		d.show.Heading("%d. %s", number, act.title)
		if err := act.play(d, ctx); err != nil {
			return &d.report, d.explain(ctx, err)
		}
	}
	d.report.Seconds = time.Since(began).Seconds()
	return &d.report, d.report.Verdict()
}

// makeDirectory makes the directory of the cluster, and returns what removes all that was made.
func (d *demo) makeDirectory() (remove func() error, err error) {
	named := d.options.Dir
	if named == "" {
		if named, err = os.MkdirTemp("", "reseal-demo-"); err != nil {
			return nil, err
		}
	}
	if named, err = filepath.Abs(named); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(named)
	if err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("%s is not empty: name a new directory with --dir", named)
	}
	made := []string{named}
	d.dir, d.scratch = cluster.Dir(filepath.Join(named, "cluster")), filepath.Join(named, "scratch")
	if err == nil && d.options.Dir != "" { // it was there before, and stays
		made = []string{string(d.dir), d.scratch}
	}
	if err := os.MkdirAll(d.scratch, 0o700); err != nil {
		return nil, err
	}
	return func() (err error) {
		if d.options.Keep {
			d.show.Event("the cluster is kept in %s", named)
			return nil
		}
		for _, path := range made {
			err = errors.Join(err, os.RemoveAll(path))
		}
		return err
	}, nil
}

// cleanUp ends everything that was started.
func (d *demo) cleanUp() error {
	d.show.Close()
	if d.stopLoad != nil {
		d.stopLoad()
		_ = d.loads.Wait() // what it says was said already, or is due to the end itself
	}
	for _, c := range d.clients {
		_ = c.Close() // nothing is in flight
	}
	if d.control != nil {
		d.control.close()
	}
	d.group.Close(grace)
	var err error
	for _, m := range d.machines {
		err = errors.Join(err, m.unplug())
	}
	return err
}

// errDied says that a replica ended that should run; explain tells which, and why.
var errDied = errors.New("a replica died")

// explain names what is behind an error: an interruption, a replica that died, or clients that failed.
func (d *demo) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("interrupted: everything that was started is stopped")
	}
	var reasons []error
	for _, m := range d.machines {
		reasons = append(reasons, m.died())
	}
	if d.loading != nil {
		if cause := context.Cause(d.loading); !errors.Is(cause, context.Canceled) {
			reasons = append(reasons, cause)
		}
	}
	if why := errors.Join(reasons...); errors.Is(err, errDied) && why != nil {
		return why
	}
	return errors.Join(append([]error{err}, reasons...)...)
}

// step moves the bar on.
func (d *demo) step(what string) {
	d.steps++
	d.doing = what
	d.refresh()
}

// refresh draws the bar with the present count.
func (d *demo) refresh() {
	d.show.Bar(d.steps, d.totalSteps(), "%s · %d writes acknowledged", d.doing, d.load.ledger.count())
}

func (d *demo) totalSteps() int {
	total := 3 + d.options.Size.N()
	if d.hasTPMs() {
		total += 2
	}
	if d.options.Size.C > 0 {
		total++
	}
	return total
}

func (d *demo) hasTPMs() bool { return d.options.Keystore == cluster.SWTPM }
