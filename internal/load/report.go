package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Report is what one run measured, or several that were merged. Its JSON names do not change.
type Report struct {
	Plan Plan `json:"plan"`
	// ReadsAre says in words how reads are made.
	ReadsAre string `json:"reads_are"`
	// Machines is the number of runs that are merged in it.
	Machines int       `json:"machines"`
	Began    time.Time `json:"began"`
	Seconds  float64   `json:"seconds"`
	Reads    Account   `json:"reads"`
	Writes   Account   `json:"writes"`
	// Unverified counts the certificates of replies that did not verify; such replies are passed over.
	Unverified int `json:"unverified_replies"`
	// LongestGapMS is the longest time without an answer to any client, in milliseconds.
	LongestGapMS int64 `json:"longest_gap_ms"`
	// Failure is the first one.
	Failure string `json:"failure,omitempty"`
	// Interrupted says that the run was ended before its time, and why.
	Interrupted string   `json:"interrupted,omitempty"`
	Check       *Verdict `json:"check,omitempty"`
	// Interval is the length of the samples in seconds; they follow one another from Began.
	Interval float64  `json:"interval_seconds"`
	Samples  []Sample `json:"samples"`
}

// Counts are numbers of operations.
type Counts struct {
	Operations int `json:"operations"` // with a verified answer
	Failed     int `json:"failed"`     // without one in time
}

// Account is what came of the operations of one kind.
type Account struct {
	Counts
	Requests  int     `json:"requests"`
	Bytes     int64   `json:"bytes"` // of the values written or read
	PerSecond float64 `json:"per_second"`
	// Percentiles of the latency in milliseconds, counted from when an operation was due.
	P50 float64 `json:"p50_ms"`
	P90 float64 `json:"p90_ms"`
	P99 float64 `json:"p99_ms"`
	// P999 is the 99.9th percentile.
	P999 float64 `json:"p999_ms"`
	Max  float64 `json:"max_ms"`
	// Histogram holds the latencies in microseconds.
	Histogram Histogram `json:"histogram"`
}

// Sample is what came of the operations that were answered in one interval.
type Sample struct {
	Reads  Samples `json:"reads"`
	Writes Samples `json:"writes"`
}

// Samples are those of one kind in one interval.
type Samples struct {
	Counts
	latencies *hdrhistogram.PackedHistogram
}

// MarshalJSON writes the samples with their latencies as a [Histogram].
func (s Samples) MarshalJSON() ([]byte, error) {
	out := jsonSamples{Counts: s.Counts}
	if s.latencies != nil {
		h := hdrhistogram.New(1, longest, digits)
		s.latencies.MergeInto(h)
		out.Histogram = &Histogram{h}
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads them.
func (s *Samples) UnmarshalJSON(data []byte) error {
	var in jsonSamples
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	s.Counts, s.latencies = in.Counts, nil
	if in.Histogram != nil {
		s.latencies = hdrhistogram.NewPacked(1, longest, digits)
		s.latencies.MergeFrom(in.Histogram.Histogram)
	}
	return nil
}

type jsonSamples struct {
	Counts
	Histogram *Histogram `json:"histogram,omitempty"`
}

// Histogram is an HDR histogram; its JSON is the compressed V2 encoding in base64, which every HDR
// library reads.
type Histogram struct{ *hdrhistogram.Histogram }

// MarshalJSON writes the histogram.
func (h Histogram) MarshalJSON() ([]byte, error) {
	text, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return nil, err
	}
	return json.Marshal(string(text))
}

// UnmarshalJSON reads one, of the range that this package writes.
func (h *Histogram) UnmarshalJSON(data []byte) error {
	var text string
	err := json.Unmarshal(data, &text)
	if err != nil {
		return err
	}
	decoded, err := hdrhistogram.Decode([]byte(text))
	if err != nil {
		return fmt.Errorf("a histogram of latencies: %w", err)
	}
	h.Histogram = hdrhistogram.New(1, longest, digits)
	if dropped := h.Merge(decoded); dropped > 0 {
		return fmt.Errorf("a histogram of latencies has %d values that are out of range", dropped)
	}
	return nil
}

// MBPerSecond is the size of the values that were written or read in a second, in units of 10^6 bytes.
func (a *Account) MBPerSecond(seconds float64) float64 {
	if seconds <= 0 {
		return 0
	}
	return float64(a.Bytes) / 1e6 / seconds
}

// sum completes an account from its histogram.
func (a *Account) sum(seconds float64) {
	a.PerSecond = 0
	if seconds > 0 {
		a.PerSecond = float64(a.Operations) / seconds
	}
	at := func(percentile float64) float64 { return float64(a.Histogram.ValueAtQuantile(percentile)) / 1000 }
	a.P50, a.P90, a.P99, a.P999, a.Max = at(50), at(90), at(99), at(99.9), float64(a.Histogram.Histogram.Max())/1000
}

// Report sums up what the meter has measured.
func (m *Meter) Report() *Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gap = max(m.gap, time.Since(m.last))
	r := &Report{Machines: 1, Began: m.began, Seconds: m.last.Sub(m.began).Seconds(), LongestGapMS: m.gap.Milliseconds(), Interval: m.interval.Seconds()}
	for kind, account := range []*Account{&r.Reads, &r.Writes} {
		t := &m.accounts[kind]
		*account = Account{Counts: t.Counts, Requests: t.requests, Bytes: t.bytes, Histogram: Histogram{t.latencies}}
		account.sum(r.Seconds)
	}
	for _, s := range m.spans {
		r.Samples = append(r.Samples, Sample{Reads: s[reads], Writes: s[writes]})
	}
	if m.failure != nil {
		r.Failure = m.failure.Error()
	}
	return r
}

// Failed reports everything that was not as it should be; nil if nothing was.
func (r *Report) Failed() error {
	var reasons []error
	if n := r.Reads.Failed + r.Writes.Failed; n > 0 {
		reasons = append(reasons, fmt.Errorf("%d operations failed, first: %s", n, r.Failure))
	}
	if r.Reads.Operations+r.Writes.Operations == 0 {
		reasons = append(reasons, errors.New("no operation was answered"))
	}
	if r.Unverified > 0 {
		reasons = append(reasons, fmt.Errorf("%d replies did not verify under the group key: a replica lies", r.Unverified))
	}
	if r.Interrupted != "" {
		reasons = append(reasons, errors.New(r.Interrupted))
	}
	if r.Check != nil && r.Check.Result != linearizable {
		reasons = append(reasons, fmt.Errorf("the history is %s: %s", r.Check.Result, r.Check.Detail))
	}
	return errors.Join(reasons...)
}

// Merge sums up what several machines measured at the same time.
func Merge(reports []*Report) (*Report, error) {
	if len(reports) == 0 {
		return nil, errors.New("name the reports to merge")
	}
	merged := &Report{Plan: reports[0].Plan, Began: reports[0].Began, Interval: reports[0].Interval}
	merged.Plan.Clients, merged.Plan.Rate = 0, 0
	end, first, rated := merged.Began, reports[0].ended(), true
	var readsAre []string
	for i, r := range reports {
		if slices.ContainsFunc(reports[:i], func(o *Report) bool { return o.Began.Equal(r.Began) }) {
			return nil, fmt.Errorf("two reports are of runs that began at %v: name each once", r.Began)
		}
		if r.Interval <= 0 || r.Interval != merged.Interval || r.Reads.Histogram.Histogram == nil || r.Writes.Histogram.Histogram == nil {
			return nil, fmt.Errorf("a report has samples of %g s, and another of %g s: merge reports of runs with one --duration", r.Interval, merged.Interval)
		}
		if r.Began.Before(merged.Began) {
			merged.Began = r.Began
		}
		if e := r.ended(); e.After(end) {
			end = e
		} else if e.Before(first) {
			first = e
		}
		rated = rated && r.Plan.Rate > 0
		if r.Reads.Requests > 0 && !slices.Contains(readsAre, r.ReadsAre) {
			readsAre = append(readsAre, r.ReadsAre)
		}
	}
	for _, r := range reports {
		if !r.Began.Before(first) {
			return nil, fmt.Errorf("a run began %v after another had ended: merge reports of runs that went on at the same time", r.Began.Sub(first).Round(time.Second))
		}
	}
	merged.ReadsAre = strings.Join(readsAre, "; and ")
	merged.Seconds = end.Sub(merged.Began).Seconds()
	merged.Reads.Histogram.Histogram, merged.Writes.Histogram.Histogram = hdrhistogram.New(1, longest, digits), hdrhistogram.New(1, longest, digits)
	for _, r := range reports {
		if err := merged.add(r); err != nil {
			return nil, err
		}
	}
	if !rated { // some asked for as much as they got
		merged.Plan.Rate = 0
	}
	merged.Reads.sum(merged.Seconds)
	merged.Writes.sum(merged.Seconds)
	return merged, nil
}

// ended is when the last answer came.
func (r *Report) ended() time.Time {
	return r.Began.Add(time.Duration(r.Seconds * float64(time.Second)))
}

func (r *Report) add(other *Report) error {
	r.Machines += other.Machines
	r.Plan.Clients += other.Plan.Clients
	r.Plan.Rate += other.Plan.Rate
	r.Reads.add(&other.Reads)
	r.Writes.add(&other.Writes)
	r.Unverified += other.Unverified
	r.LongestGapMS = max(r.LongestGapMS, other.LongestGapMS) // no more than that
	if r.Failure == "" {
		r.Failure = other.Failure
	}
	if r.Interrupted == "" {
		r.Interrupted = other.Interrupted
	}
	if c := other.Check; c != nil {
		if r.Check == nil {
			r.Check = &Verdict{Result: linearizable}
		}
		r.Check.add(c)
	}
	offset := int(other.Began.Sub(r.Began).Seconds()/r.Interval + 0.5)
	if offset+len(other.Samples) > maxSamples {
		return fmt.Errorf("runs that began %v apart are not of one measurement", other.Began.Sub(r.Began))
	}
	for i := range other.Samples {
		at := offset + i
		if at >= len(r.Samples) {
			r.Samples = slices.Concat(r.Samples, make([]Sample, at+1-len(r.Samples)))
		}
		r.Samples[at].Reads.add(&other.Samples[i].Reads)
		r.Samples[at].Writes.add(&other.Samples[i].Writes)
	}
	return nil
}

// add sums up verdicts on histories that have no key in common.
func (v *Verdict) add(other *Verdict) {
	v.Operations += other.Operations
	v.Keys += other.Keys
	v.Seconds += other.Seconds
	if v.Result == linearizable || other.Result == notLinearizable {
		v.Result, v.Detail = other.Result, other.Detail
	}
}

// maxSamples bounds the samples of a merged report.
const maxSamples = 100_000

func (c *Counts) add(other Counts) {
	c.Operations += other.Operations
	c.Failed += other.Failed
}

func (a *Account) add(other *Account) {
	a.Counts.add(other.Counts)
	a.Requests += other.Requests
	a.Bytes += other.Bytes
	a.Histogram.Merge(other.Histogram.Histogram)
}

func (s *Samples) add(other *Samples) {
	s.Counts.add(other.Counts)
	if other.latencies == nil {
		return
	}
	if s.latencies == nil {
		s.latencies = hdrhistogram.NewPacked(1, longest, digits)
	}
	s.latencies.Merge(other.latencies)
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\toperations\tper second\tMB/s\tfailed\tp50\tp90\tp99\tp99.9\tmax, ms\t")
	for _, row := range []struct {
		name string
		a    *Account
	}{{"reads", &r.Reads}, {"writes", &r.Writes}} {
		if a := row.a; a.Requests > 0 {
			fmt.Fprintf(w, "%s\t%d\t%.0f\t%.1f\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t\n", row.name, a.Operations, a.PerSecond, a.MBPerSecond(r.Seconds), a.Failed, a.P50, a.P90, a.P99, a.P999, a.Max)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if r.Reads.Requests > 0 {
		fmt.Fprintf(out, "reads are %s\n", r.ReadsAre)
	}
	fmt.Fprintf(out, "%.1f s; the longest time without an answer: %d ms; replies that did not verify: %d\n", r.Seconds, r.LongestGapMS, r.Unverified)
	if r.Plan.Rate > 0 {
		fmt.Fprintf(out, "%.0f operations a second were due; latency is counted from when each was\n", r.Plan.Rate)
	}
	if v := r.Check; v != nil {
		fmt.Fprintf(out, "porcupine: %s (%d operations on %d keys, judged in %.1f s)", v.Result, v.Operations, v.Keys, v.Seconds)
		if v.Detail != "" {
			fmt.Fprintf(out, "; %s", v.Detail)
		}
		fmt.Fprintln(out)
	}
	return nil
}
