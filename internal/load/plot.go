package load

import (
	"bytes"
	"os"
	"path/filepath"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/reseal-bft/reseal/internal/chart"
)

// WritePlots draws latency.svg and rate.svg, over time, and percentiles.svg into dir, and makes dir
// if it is missing.
func (r *Report) WritePlots(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, c := range map[string]*chart.Chart{"latency.svg": r.latencyOverTime(), "rate.svg": r.rateOverTime(), "percentiles.svg": r.percentiles()} {
		var b bytes.Buffer
		if err := c.WriteSVG(&b); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// kinds are those that were asked for.
func (r *Report) kinds() (out []kind) {
	if r.Reads.Requests > 0 {
		out = append(out, kind{"reads", chart.Colors[1], &r.Reads, func(s *Sample) *Samples { return &s.Reads }})
	}
	if r.Writes.Requests > 0 {
		out = append(out, kind{"writes", chart.Colors[0], &r.Writes, func(s *Sample) *Samples { return &s.Writes }})
	}
	return out
}

type kind struct {
	name, color string
	account     *Account
	of          func(*Sample) *Samples
}

func (r *Report) latencyOverTime() *chart.Chart {
	c := &chart.Chart{Title: "Latency", Unit: "µs", Along: "seconds", Linear: true, Labels: r.times()}
	for _, k := range r.kinds() {
		for _, line := range []struct {
			name, dash string
			at         float64
		}{{"p50", "", 50}, {"p99", "6 4", 99}, {"max", "2 4", 100}} {
			s := chart.Series{Name: k.name + ", " + line.name, Color: k.color, Dash: line.dash, Bare: true}
			for i := range r.Samples {
				if h := k.of(&r.Samples[i]).latencies; h != nil {
					whole := hdrhistogram.New(1, longest, digits)
					h.MergeInto(whole)
					s.Points = append(s.Points, chart.Point{X: r.at(i), Y: float64(whole.ValueAtQuantile(line.at))})
				}
			}
			c.Series = append(c.Series, s)
		}
	}
	return c
}

func (r *Report) rateOverTime() *chart.Chart {
	c := &chart.Chart{Title: "Answered", Unit: "operations per second", Along: "seconds", Linear: true, Labels: r.times()}
	for _, k := range r.kinds() {
		s := chart.Series{Name: k.name, Color: k.color, Bare: true}
		failed := chart.Series{Name: k.name + " that failed", Color: chart.Colors[2], Bare: true}
		any := false
		for i := range r.Samples {
			n := k.of(&r.Samples[i]).Counts
			s.Points = append(s.Points, chart.Point{X: r.at(i), Y: float64(n.Operations) / r.Interval})
			failed.Points = append(failed.Points, chart.Point{X: r.at(i), Y: float64(n.Failed) / r.Interval})
			any = any || n.Failed > 0
		}
		c.Series = append(c.Series, s)
		if any {
			c.Series = append(c.Series, failed)
		}
	}
	return c
}

// at is the middle of a sample, in seconds.
func (r *Report) at(sample int) float64 { return (float64(sample) + 0.5) * r.Interval }

func (r *Report) times() (labels []chart.Label) {
	if len(r.Samples) == 0 {
		return nil
	}
	step := max(1, len(r.Samples)/8)
	for i := 0; i < len(r.Samples); i += step {
		labels = append(labels, chart.Label{At: float64(i) * r.Interval})
	}
	return labels
}

func (r *Report) percentiles() *chart.Chart {
	c := &chart.Chart{Title: "Latency by percentile", Unit: "µs", Along: "percentile"}
	percents := []struct {
		at   float64
		text string
	}{{0, "0"}, {50, "50"}, {75, ""}, {90, "90"}, {95, ""}, {99, "99"}, {99.5, ""}, {99.9, "99.9"}, {99.95, ""}, {99.99, "99.99"}}
	for _, k := range r.kinds() {
		s := chart.Series{Name: k.name, Color: k.color}
		for _, p := range percents {
			s.Points = append(s.Points, chart.Point{X: 100 / (100 - p.at), Y: float64(k.account.Histogram.ValueAtQuantile(p.at))})
		}
		c.Series = append(c.Series, s)
	}
	for _, p := range percents {
		if p.text != "" {
			c.Labels = append(c.Labels, chart.Label{At: 100 / (100 - p.at), Text: p.text})
		}
	}
	return c
}
