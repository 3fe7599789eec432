package demo

import (
	"sync"
	"time"
)

// meter counts acknowledged operations and watches for the longest time without one. Safe for concurrent use.
type meter struct {
	mu         sync.Mutex
	now        func() time.Time
	operations int
	running    bool
	last       time.Time
	longest    time.Duration
}

// mark is a point in time, to take a rate between two.
type mark struct {
	at         time.Time
	operations int
}

func newMeter() *meter { return &meter{now: time.Now} }

// start begins to watch for gaps.
func (m *meter) start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running, m.last = true, m.now()
}

// stop ends it. A gap that is still open counts.
func (m *meter) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note()
	m.running = false
}

// acknowledged counts operations that a client holds a verified reply for.
func (m *meter) acknowledged(operations int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.operations += operations
	m.note()
}

func (m *meter) note() {
	if now := m.now(); m.running {
		m.longest = max(m.longest, now.Sub(m.last))
		m.last = now
	}
}

func (m *meter) mark() mark {
	m.mu.Lock()
	defer m.mu.Unlock()
	return mark{m.now(), m.operations}
}

func (m *meter) longestGap() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.longest
}

// rate sums up spans of time, each between two marks, to operations per second.
type rate struct {
	operations int
	span       time.Duration
}

func (r *rate) add(from, to mark) {
	r.operations += to.operations - from.operations
	r.span += to.at.Sub(from.at)
}

func (r *rate) perSecond() float64 {
	if r.span <= 0 {
		return 0
	}
	return float64(r.operations) / r.span.Seconds()
}
