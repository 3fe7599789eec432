package drill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/actor"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/internal/progress"
	"github.com/reseal-bft/reseal/internal/stage"
)

// Drill is one rehearsal.
type Drill struct {
	// Name is what it is called by, in words joined by hyphens.
	Name string `json:"name"`
	// Summary says in a sentence what happens and what must hold.
	Summary string `json:"summary"`

	keystore cluster.Kind
	size     bft.Size // the zero value: f = 1, c = 1
	deadline time.Duration
	// actors says that every replica is an actor, whose conduct the drill directs.
	actors bool
	// untraced leaves out the trace of every replica, which a long drill would fill the disk with.
	untraced bool
	play     func(context.Context, *Rehearsal) error
}

// Result is what came of a drill. Its JSON names do not change.
type Result struct {
	Name   string `json:"name"`
	Passed bool   `json:"passed"`
	// Seconds is how long it took, making and removing the cluster included.
	Seconds float64 `json:"seconds"`
	Checks  []Check `json:"checks"`
	// Error says why the drill was not played to its end.
	Error string `json:"error,omitempty"`
}

// Check is one promise, and what was seen of it.
type Check struct {
	// Name is the promise in a few words.
	Name   string `json:"name"`
	Passed bool   `json:"passed"`
	// Detail is what was seen, such as the words of a refusal.
	Detail string `json:"detail,omitempty"`
}

// Options are what a person can choose.
type Options struct {
	// Program is the reseal binary that is rehearsed.
	Program string
	// Out is where the story is told.
	Out io.Writer
	// Keep leaves the clusters' directories behind.
	Keep bool
}

// All lists the drills in the order in which they are played.
func All() []Drill {
	return slices.Concat(intruders, devices, tokens, faults, crashes, liars, overloads)
}

// Find returns the drills of the given names; "all" stands for every one.
func Find(names []string) ([]Drill, error) {
	all := All()
	if len(names) == 1 && names[0] == "all" {
		return all, nil
	}
	var found []Drill
	for _, name := range names {
		i := slices.IndexFunc(all, func(d Drill) bool { return d.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no drill %q: `reseal drill list` shows them", name)
		}
		found = append(found, all[i])
	}
	return found, nil
}

// Run plays drills one after the other, and returns what came of those that were begun. It stops
// early only when ctx ends.
func Run(ctx context.Context, drills []Drill, options Options) []Result {
	results := []Result{}
	for _, d := range drills {
		if ctx.Err() != nil {
			break
		}
		results = append(results, d.run(ctx, options))
	}
	return results
}

// Passed reports whether all drills passed.
func Passed(results []Result) bool {
	return !slices.ContainsFunc(results, func(r Result) bool { return !r.Passed })
}

// Rehearsal is a drill that is being played.
type Rehearsal struct {
	*stage.Stage
	result *Result
	liars  map[bft.ReplicaID]bool // who acts as no correct replica would
}

// Check notes whether a promise held. The detail is what was seen.
func (r *Rehearsal) Check(held bool, promise, detail string, args ...any) {
	c := Check{Name: promise, Passed: held, Detail: fmt.Sprintf(detail, args...)}
	r.result.Checks = append(r.result.Checks, c)
	r.Show.Event("%s %s: %s", map[bool]string{true: "held:  ", false: "BROKEN:"}[held], c.Name, c.Detail)
}

func (d *Drill) run(ctx context.Context, options Options) Result {
	began := time.Now()
	result := Result{Name: d.Name, Checks: []Check{}}
	show := progress.New(options.Out)
	show.Heading("%s: %s", d.Name, d.Summary)
	if err := d.rehearse(ctx, options, show, &result); err != nil {
		result.Error = err.Error()
		show.Event("the drill was not played to its end: %v", err)
	}
	result.Seconds = time.Since(began).Seconds()
	result.Passed = result.Error == "" && len(result.Checks) > 0 && !slices.ContainsFunc(result.Checks, func(c Check) bool { return !c.Passed })
	return result
}

func (d *Drill) rehearse(ctx context.Context, options Options, show *progress.Display, result *Result) (err error) {
	size := d.size
	if size == (bft.Size{}) {
		size = bft.Size{F: 1, C: 1}
	}
	s, err := stage.New(stage.Options{
		Size: size, Keystore: d.keystore, Keep: options.Keep, Program: options.Program, RoundDeadline: d.deadline, Traces: !d.untraced, Show: show,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	r := &Rehearsal{Stage: s, result: result, liars: map[bft.ReplicaID]bool{}}
	if err := s.Create(ctx); err != nil {
		return err
	}
	if err := r.boot(d.actors); err != nil {
		return err
	}
	if !d.untraced {
		defer func() { err = errors.Join(err, r.judge()) }()
	}
	if _, err := s.AwaitGroupKey(ctx); err != nil {
		return s.Explain(ctx, err)
	}
	if err := s.Recruit(2); err != nil {
		return err
	}
	s.StartLoad(ctx)
	show.Event("%d replicas run, with keys in %s; clients write and verify", size.N(), d.keystore)
	if err := d.play(ctx, r); err != nil {
		return s.Explain(ctx, err)
	}
	return r.account(ctx)
}

// boot boots every machine for the first time.
func (r *Rehearsal) boot(actors bool) error {
	if !actors {
		return r.Boot()
	}
	for _, m := range r.Machines {
		if err := r.direct(m.ID, actor.Conduct{}); err != nil {
			return err
		}
		if err := m.Act(r.Program, r.conduct(m.ID)); err != nil {
			return err
		}
	}
	return nil
}

// conduct is the file that a replica follows as an actor.
func (r *Rehearsal) conduct(id bft.ReplicaID) string {
	return filepath.Join(r.Scratch, fmt.Sprintf("conduct-%d.json", id))
}

// direct tells an actor how to behave from now on.
func (r *Rehearsal) direct(id bft.ReplicaID, c actor.Conduct) error { return c.Save(r.conduct(id)) }

// account closes every drill: the service still takes writes, and none that was acknowledged is lost.
func (r *Rehearsal) account(ctx context.Context) error {
	if err := r.Serves(ctx); err != nil {
		return err
	}
	acknowledged, lost, err := r.StopLoad(ctx)
	if err != nil {
		return err
	}
	unverified := r.Control.Witness.Refused.Load()
	r.Check(acknowledged > 0 && lost == 0 && unverified == 0, "no acknowledged write is lost, and every reply verifies",
		"%d writes acknowledged, %d lost, %d replies that do not verify", acknowledged, lost, unverified)
	return nil
}

// judge closes every drill, also one that was not played to its end: the monitor finds all that the
// honest replicas said justified.
func (r *Rehearsal) judge() error {
	verdict, err := r.Verdict(func(m *stage.Machine) bool { return !r.liars[m.ID] })
	if err != nil {
		return err
	}
	detail := verdict.String()
	if len(verdict.Faults) > 0 {
		detail = strings.Join(verdict.Faults, "\n")
	}
	r.Check(verdict.Steps > 0 && len(verdict.Faults) == 0, "all that honest replicas said was justified by what they had received and stored", "%s", detail)
	return nil
}

// Serves waits until writes are acknowledged that were begun after the call: what was under way
// before may be acknowledged whatever happened since.
func (r *Rehearsal) Serves(ctx context.Context) error {
	underWay := len(r.Clients) * stage.RequestPairs
	from := r.Load.Meter.Mark().Operations
	return r.Until(ctx, "another write is acknowledged", func(context.Context) (bool, error) {
		return r.Load.Meter.Mark().Operations > from+2*underWay, nil
	})
}
