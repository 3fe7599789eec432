package bft

import "fmt"

// newJudge makes a judge of a core that starts from what was on disk: it is shown every event, and
// what the core does of it, and reports what is not justified.
type newJudge = func(Config, Restored, func(string)) func(Now, Event, []Effect)

// Judge makes what stands beside every core of the exhaustive checks: the monitor (bft/monitor). That
// imports this package, so it is the package's external tests that put it here.
var Judge newJudge

// unjustified is what a core did in an explored state without a reason.
type unjustified struct {
	by       ReplicaID
	sentence string
}

func (u unjustified) Error() string { return fmt.Sprintf("replica %d %s", u.by, u.sentence) }

// watched is a core with a monitor beside it.
type watched struct {
	*Core
	see func(Now, Event, []Effect)
}

func (m *model) watch(core *Core) *watched {
	if m.judge == nil {
		return &watched{core, func(Now, Event, []Effect) {}}
	}
	return &watched{core, m.judge(core.cfg, Restored{}, func(sentence string) {
		if m.unjustified == nil {
			m.unjustified = unjustified{core.cfg.Self, sentence}
		}
	})}
}

func (w *watched) Start(now Now) []Effect {
	effects := w.Core.Start(now)
	w.see(now, nil, effects)
	return effects
}

func (w *watched) Step(now Now, event Event) []Effect {
	effects := w.Core.Step(now, event)
	w.see(now, event, effects)
	return effects
}
