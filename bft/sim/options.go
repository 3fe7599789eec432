package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/reseal-bft/reseal/bft"
)

// Options choose a simulation. The zero value of each stands for its default.
type Options struct {
	F, C int // default 1 and 1
	// Adversary names what the f Byzantine replicas do: one of Adversaries, "all" (each seed picks;
	// the default) or "none".
	Adversary string
	// Faults are some of AllFaults. Nil stands for all, empty for none.
	Faults []string
	// EpochBlocks is how many blocks an epoch has before its replicas deal for the next. Default 30.
	EpochBlocks bft.Height
	// Window is the number of views that a leader serves. Default 4.
	Window int
	// Chaos is how long the first phase lasts. Default 2 s of virtual time.
	Chaos time.Duration
	// Application makes an application to be replicated along with the simulator's own, and
	// Operation the data of each client's operations, numbered from 1. All replicas must come to
	// the same results and states, also through snapshots.
	Application func() bft.Application
	Operation   func(client, number int) []byte
	// Mutant names a planted bug. Only builds with the tag mutants know any.
	Mutant string
	// Trace gets a line for everything that happens.
	Trace func(line string)
}

// Adversaries are the ways in which replicas are Byzantine.
var Adversaries = []string{"equivocate", "withhold", "bad-share", "replay", "split", "censor", "collude", "twins", "invalid", "unseen"}

// AllFaults are the faults of machines and network.
var AllFaults = []string{"crash", "amnesia", "partition", "delay", "duplicate", "reorder", "clock", "slow-disk", "recovery"}

// complete fills in the defaults and checks the rest.
func (o Options) complete() (Options, error) {
	if o.F == 0 && o.C == 0 {
		o.F, o.C = 1, 1
	}
	if o.Adversary == "" {
		o.Adversary = "all"
	}
	if o.Faults == nil {
		o.Faults = AllFaults
	}
	if o.EpochBlocks == 0 {
		o.EpochBlocks = 30
	}
	if o.Window == 0 {
		o.Window = 4
	}
	if o.Chaos == 0 {
		o.Chaos = 2 * time.Second
	}
	if err := (bft.Size{F: o.F, C: o.C}).Validate(); err != nil {
		return o, err
	}
	if o.Adversary != "all" && o.Adversary != "none" && !slices.Contains(Adversaries, o.Adversary) {
		return o, fmt.Errorf("unknown adversary %q: choose all, none or one of %s", o.Adversary, strings.Join(Adversaries, ", "))
	}
	for _, fault := range o.Faults {
		if !slices.Contains(AllFaults, fault) {
			return o, fmt.Errorf("unknown fault %q: choose from %s", fault, strings.Join(AllFaults, ", "))
		}
	}
	if o.Mutant != "" && !slices.Contains(Mutants(), o.Mutant) {
		return o, fmt.Errorf("unknown planted bug %q: --mutant list names them", o.Mutant)
	}
	return o, nil
}

func (o Options) has(fault string) bool { return slices.Contains(o.Faults, fault) }

// Times of a simulated machine.
const (
	cryptoTime    = 500 * time.Microsecond
	executionTime = 300 * time.Microsecond
	pollTime      = 2 * time.Millisecond
)

// timeouts of the simulated cores.
var timeouts = bft.Timeouts{
	View: 160 * time.Millisecond, ViewMax: 2 * time.Second, Finalize: 20 * time.Millisecond,
	Idle: 20 * time.Millisecond, Resend: 100 * time.Millisecond, Ahead: time.Second,
}

// bound is the virtual time within which a cluster must have executed everything after the faults
// stopped: enough for every leader to fail once at the longest timeout, twice over, and for
// replicas that lag to pass through the epochs they missed.
func (o Options) bound() time.Duration {
	leaders := time.Duration(o.F + o.C + 1)
	return 2*leaders*timeouts.ViewMax + 20*time.Second
}
