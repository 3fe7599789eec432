package load

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// maxHistory bounds the operations of a history: 48 bytes each, and several times that while it is
// judged.
const maxHistory = 4 << 20

// History records what clients saw, for porcupine to judge. Each key is a register by itself. Safe
// for concurrent use.
type History struct {
	began time.Time
	room  int
	full  func() // called when there is no more room

	mu      sync.Mutex
	entries []entry
}

// entry is one operation on one key.
type entry struct {
	touch
	client       int32
	write        bool
	call, answer int64 // nanoseconds from the beginning
}

// NewHistory begins a history; full is called when there is no more room in it.
func NewHistory(full func()) *History {
	return &History{began: time.Now(), room: maxHistory, full: full}
}

// Note records a request. A read without an answer says nothing; a write without one may happen at
// any time after it was made.
func (h *History) Note(r *Request) {
	write := len(r.Pairs) > 0
	if r.Err != nil && !write {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range r.touched {
		e := entry{touch: t, client: int32(r.Client), write: write, call: r.Sent.Sub(h.began).Nanoseconds(), answer: r.Done.Sub(h.began).Nanoseconds()}
		if r.Err != nil {
			e.answer = math.MaxInt64
		}
		h.entries = append(h.entries, e)
	}
	if len(h.entries) >= h.room && h.full != nil {
		h.full()
		h.full = nil
	}
}

// Keys returns the numbers of the keys that were written.
func (h *History) Keys() []uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := make(map[uint64]bool)
	var keys []uint64
	for _, e := range h.entries {
		if e.write && !seen[e.key] {
			seen[e.key] = true
			keys = append(keys, e.key)
		}
	}
	return keys
}

// Verdict is what porcupine says of a history.
type Verdict struct {
	// Result is "linearizable", "not linearizable" or "undecided".
	Result     string  `json:"result"`
	Operations int     `json:"operations"`
	Keys       int     `json:"keys"`
	Seconds    float64 `json:"seconds"`
	// Detail says more of a result that is not the good one.
	Detail string `json:"detail,omitempty"`
}

// The results of a judgement.
const (
	linearizable    = "linearizable"
	notLinearizable = "not linearizable"
	undecided       = "undecided"
)

// Judge asks porcupine whether the history is linearizable, within a time. The history is not
// changed meanwhile.
func (h *History) Judge(within time.Duration) Verdict {
	h.mu.Lock()
	defer h.mu.Unlock()
	began := time.Now()
	byKey := make(map[uint64][]porcupine.Operation)
	for _, e := range h.entries {
		byKey[e.key] = append(byKey[e.key], porcupine.Operation{ClientId: int(e.client), Input: e.write, Output: e.value, Call: e.call, Return: e.answer})
	}
	v := Verdict{Result: linearizable, Operations: len(h.entries), Keys: len(byKey)}
	for key, operations := range byKey {
		left := within - time.Since(began)
		result := porcupine.Unknown
		if left > 0 {
			result = porcupine.CheckOperationsTimeout(register, operations, left)
		}
		switch {
		case result == porcupine.Illegal:
			v.Result, v.Detail = notLinearizable, fmt.Sprintf("key %d: its %d operations have no order that explains what was read", key, len(operations))
		case result == porcupine.Unknown && v.Result == linearizable:
			v.Result, v.Detail = undecided, fmt.Sprintf("key %d: %d operations were not judged within %v; more keys or fewer clients make it easier", key, len(operations), within)
		}
		if v.Result != linearizable {
			break
		}
	}
	v.Seconds = time.Since(began).Seconds()
	return v
}

// register is a key: its state is the number of the value that it has, 0 for none. Input says
// whether the operation writes, and output what it wrote or found.
var register = porcupine.Model{
	Init: func() any { return uint64(0) },
	Step: func(state, input, output any) (bool, any) {
		if input.(bool) {
			return true, output
		}
		return state == output, state
	},
}
