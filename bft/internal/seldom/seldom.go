package seldom

import (
	"sync"
	"time"
)

// Teller is what tells of subjects, of each once in a while. Subjects are few: it forgets none. Safe
// for concurrent use.
type Teller[K comparable] struct {
	every time.Duration

	mu sync.Mutex
	of map[K]*told
}

type told struct {
	at   time.Time
	more int // since then
}

// New makes one that tells of a subject at most every so often.
func New[K comparable](every time.Duration) *Teller[K] {
	return &Teller[K]{every: every, of: make(map[K]*told)}
}

// Due says whether something that happened now is to be told, and how often it was not since the
// last time that it was.
func (t *Teller[K]) Due(subject K, now time.Time) (more int, due bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := t.of[subject]
	if last != nil && now.Sub(last.at) < t.every {
		last.more++
		return last.more, false
	}
	if last != nil {
		more = last.more
	}
	t.of[subject] = &told{at: now}
	return more, true
}
