package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/internal/load"
	"github.com/reseal-bft/reseal/internal/progress"
	"github.com/reseal-bft/reseal/internal/stage"
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
	// Dir is where the cluster lives, and must be empty or not exist; empty: a new temporary
	// directory. Keep leaves it there.
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
	*stage.Stage
	options Options
	source  string // the directory of the input
	input   []load.Pair
	report  Report

	quiet   stage.Rate // operations while nothing is being recovered
	healing stage.Rate // and during the recoveries of act 3
	offers  []offer    // of shares that are over, for the end
	steps   int
	doing   string
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

// Run plays the demonstration. It returns a report as far as it came (complete if its Seconds are
// set), and an error unless everything held. Nothing is left running when it returns, whatever way
// it ends.
func Run(ctx context.Context, options Options) (report *Report, err error) {
	if err := options.Validate(); err != nil {
		return nil, err
	}
	d := &demo{options: options}
	n := options.Size.N()
	d.report = Report{N: n, F: options.Size.F, C: options.Size.C, Keystore: string(options.Keystore), Recoveries: []Recovery{}}
	if d.source, d.input, err = findInput(options.Input); err != nil {
		return nil, err
	}
	d.Stage, err = stage.New(stage.Options{
		Size: options.Size, Keystore: options.Keystore, Dir: options.Dir, Keep: options.Keep, Program: options.Program, Show: progress.New(options.Out),
	})
	if err != nil {
		return nil, err
	}
	d.Waiting = d.refresh
	defer func() { err = errors.Join(err, d.Close()) }()

	began := time.Now()
	number := 0
	for _, act := range acts {
		if act.needs != nil && !act.needs(&options) {
			continue
		}
		number++
		d.Show.Heading("%d. %s", number, act.title)
		if err := act.play(d, ctx); err != nil {
			return &d.report, d.Explain(ctx, err)
		}
	}
	d.report.Seconds = time.Since(began).Seconds()
	return &d.report, d.report.Verdict()
}

// step moves the bar on.
func (d *demo) step(what string) {
	d.steps++
	d.doing = what
	d.refresh()
}

// refresh draws the bar with the present count.
func (d *demo) refresh() {
	d.Show.Bar(d.steps, d.totalSteps(), "%s · %d writes acknowledged", d.doing, d.Load.Ledger.Count())
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
