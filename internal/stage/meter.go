package stage

import (
	"sync"
	"time"
)

// Meter counts acknowledged operations and watches for the longest time without one. Safe for
// concurrent use.
type Meter struct {
	mu         sync.Mutex
	now        func() time.Time
	operations int
	running    bool
	last       time.Time
	longest    time.Duration
}

// Mark is a point in time, to take a rate between two.
type Mark struct {
	at time.Time
	// Operations acknowledged so far.
	Operations int
}

// NewMeter returns a meter that does not watch yet.
func NewMeter() *Meter { return &Meter{now: time.Now} }

// Start begins to watch for gaps.
func (m *Meter) Start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running, m.last = true, m.now()
}

// Stop ends it. A gap that is still open counts.
func (m *Meter) Stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note()
	m.running = false
}

// Acknowledged counts operations that a client holds a verified reply for.
func (m *Meter) Acknowledged(operations int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.operations += operations
	m.note()
}

func (m *Meter) note() {
	if now := m.now(); m.running {
		m.longest = max(m.longest, now.Sub(m.last))
		m.last = now
	}
}

// Mark returns this moment.
func (m *Meter) Mark() Mark {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Mark{m.now(), m.operations}
}

// LongestGap returns the longest time without an acknowledgement.
func (m *Meter) LongestGap() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.longest
}

// Rate sums up spans of time, each between two marks, to operations per second.
type Rate struct {
	Operations int
	span       time.Duration
}

// Add adds a span of time.
func (r *Rate) Add(from, to Mark) {
	r.Operations += to.Operations - from.Operations
	r.span += to.at.Sub(from.at)
}

// PerSecond returns the rate.
func (r *Rate) PerSecond() float64 {
	if r.span <= 0 {
		return 0
	}
	return float64(r.Operations) / r.span.Seconds()
}
