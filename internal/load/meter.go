package load

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Latencies are kept in microseconds, with three significant digits, up to an hour.
const (
	longest = int64(time.Hour / time.Microsecond)
	digits  = 3
)

// Meter measures requests. Safe for concurrent use.
type Meter struct {
	mu       sync.Mutex
	began    time.Time
	interval time.Duration
	accounts [2]tally     // of reads and of writes
	spans    [][2]Samples // one after the other from the beginning
	gap      time.Duration
	last     time.Time
	failure  error
}

// tally is what came of the operations of one kind.
type tally struct {
	Counts
	requests  int
	bytes     int64
	latencies *hdrhistogram.Histogram
}

// Kinds of operations, and their places in a pair of accounts.
const (
	reads = iota
	writes
)

// NewMeter returns a meter that begins now, with samples of the given length.
func NewMeter(interval time.Duration) *Meter {
	m := &Meter{began: time.Now(), interval: interval}
	m.last = m.began
	for kind := range m.accounts {
		m.accounts[kind].latencies = hdrhistogram.New(1, longest, digits)
	}
	return m
}

// Took is what a request took, from when it was due, in microseconds.
func (r *Request) took() int64 { return min(max(r.Done.Sub(r.Due).Microseconds(), 1), longest) }

// Note takes note of a request.
func (m *Meter) Note(r *Request) {
	kind := reads
	if len(r.Pairs) > 0 {
		kind = writes
	}
	n := r.Operations()
	m.mu.Lock()
	defer m.mu.Unlock()
	t, s := &m.accounts[kind], m.span(r.Done, kind)
	t.requests++
	if r.Err != nil {
		t.Failed += n
		s.Failed += n
		if m.failure == nil {
			m.failure = r.Err
		}
		return
	}
	t.Operations += n
	t.bytes += int64(r.bytes())
	_ = t.latencies.RecordValues(r.took(), int64(n)) // it is in range
	s.Operations += n
	if s.latencies == nil {
		s.latencies = hdrhistogram.NewPacked(1, longest, digits)
	}
	_ = s.latencies.RecordValues(r.took(), int64(n))
	m.gap = max(m.gap, r.Done.Sub(m.last))
	m.last = r.Done
}

// span returns the samples of a kind that a moment belongs to.
func (m *Meter) span(at time.Time, kind int) *Samples {
	i := max(0, int(at.Sub(m.began)/m.interval))
	for len(m.spans) <= i {
		m.spans = append(m.spans, [2]Samples{})
	}
	return &m.spans[i][kind]
}

// Lately sums up the last whole span before now, for a person who waits.
func (m *Meter) Lately(now time.Time) Recent {
	m.mu.Lock()
	defer m.mu.Unlock()
	recent := Recent{Failed: m.accounts[reads].Failed + m.accounts[writes].Failed}
	i := int(now.Sub(m.began)/m.interval) - 1
	if i < 0 || i >= len(m.spans) {
		return recent
	}
	all := hdrhistogram.New(1, longest, digits)
	for kind := range m.spans[i] {
		s := &m.spans[i][kind]
		recent.PerSecond += float64(s.Operations) / m.interval.Seconds()
		if s.latencies != nil {
			s.latencies.MergeInto(all)
		}
	}
	recent.Median, recent.P99 = microseconds(all.ValueAtQuantile(50)), microseconds(all.ValueAtQuantile(99))
	return recent
}

// Recent is what was measured in the last span, and the operations that failed since the beginning.
type Recent struct {
	PerSecond   float64
	Median, P99 time.Duration
	Failed      int
}

func microseconds(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
