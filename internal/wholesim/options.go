package wholesim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// Options choose a simulation. The zero value of each stands for its default.
type Options struct {
	F int `json:"f"` // default 1
	C int `json:"c"` // default 1, unless F is given
	// Adversary names what the f Byzantine replicas do: one of Adversaries, "all" (each seed picks;
	// the default) or "none".
	Adversary string `json:"adversary"`
	// Faults are some of AllFaults. Nil stands for all, empty for none.
	Faults []string `json:"faults"`
	// Mutant names a planted bug. Only builds with the tag mutants know any.
	Mutant string `json:"mutant,omitempty"`
	// Trace gets a line for everything that happens.
	Trace func(line string) `json:"-"`
}

// AllFaults are the faults of machines and network.
var AllFaults = []string{"crash", "power", "partition", "one-way", "delay", "clock", "handoff-cut", "blackout", "full", "put-back", "new-disk", "flipped-bit", "lost-logs"}

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
	return o, nil
}

// profile is a pace of life: how long a view may take, and how long the first phase lasts. Slow
// clusters live through hours in as many views as fast ones through minutes.
type profile struct {
	name                string
	timeouts            governance.Timeouts
	interval            time.Duration // between recovery rounds
	deadline            time.Duration // of a round
	think               time.Duration // of a client
	chaosLow, chaosHigh time.Duration
}

func d(t time.Duration) governance.Duration { return governance.Duration(t) }

var profiles = []profile{
	{
		"minutes", governance.Timeouts{
			View: d(time.Second), ViewMax: d(8 * time.Second), Finalize: d(20 * time.Millisecond), Idle: d(100 * time.Millisecond),
			Resend: d(300 * time.Millisecond), Ahead: d(10 * time.Second),
		}, 20 * time.Second, 20 * time.Second, 500 * time.Millisecond, 30 * time.Second, 90 * time.Second,
	},
	{
		"hours", governance.Timeouts{
			View: d(20 * time.Second), ViewMax: d(2 * time.Minute), Finalize: d(time.Second), Idle: d(2 * time.Second),
			Resend: d(5 * time.Second), Ahead: d(30 * time.Second),
		}, 10 * time.Minute, 5 * time.Minute, 20 * time.Second, 30 * time.Minute, 150 * time.Minute,
	},
}
