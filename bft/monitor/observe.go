package monitor

import "github.com/reseal-bft/reseal/bft"

// Observe gives every core a monitor of its own: it is what replica.Config takes to have a replica
// judged while it runs, or its trace afterwards. Report is called with the core's configuration and
// a sentence for everything that is not justified, on the core's goroutine.
func Observe(report func(bft.Config, string)) func(bft.Config, bft.Restored) func(bft.Now, bft.Event, []bft.Effect) {
	return func(cfg bft.Config, restored bft.Restored) func(bft.Now, bft.Event, []bft.Effect) {
		m := New(cfg, restored, func(sentence string) { report(cfg, sentence) })
		return func(now bft.Now, event bft.Event, effects []bft.Effect) {
			m.Observe(now, event)
			m.Judge(now, effects)
		}
	}
}
