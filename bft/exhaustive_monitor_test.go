package bft_test

import (
	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/monitor"
)

func init() {
	bft.Judge = func(cfg bft.Config, kept bft.Restored, report func(string)) func(bft.Now, bft.Event, []bft.Effect) {
		return monitor.Observe(func(_ bft.Config, sentence string) { report(sentence) })(cfg, kept)
	}
}
