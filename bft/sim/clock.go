package sim

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// world is virtual time: what is due happens in order of time, and at the same time in order of
// scheduling. Nothing else happens.
type world struct {
	now    time.Duration
	queue  agenda
	serial uint64
	rng    *rand.Rand
}

func newWorld(seed uint64) *world {
	return &world{rng: rand.New(rand.NewPCG(seed, 0x5ea1))}
}

// after schedules what is to happen after a while.
func (w *world) after(d time.Duration, do func()) {
	w.serial++
	heap.Push(&w.queue, item{w.now + max(0, d), w.serial, do})
}

// maxHappenings bounds one phase of a run: one that goes round in circles is stuck.
const maxHappenings = 3_000_000

// run lets happen what is due until a time, or until stop says so.
func (w *world) run(until time.Duration, stop func() bool) {
	for n := 0; n < maxHappenings && len(w.queue) > 0 && w.queue[0].at <= until && !stop(); n++ {
		next := heap.Pop(&w.queue).(item)
		w.now = next.at
		next.do()
	}
	if !stop() {
		w.now = max(w.now, until)
	}
}

// chance reports true with probability p.
func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

// between picks a duration, uniformly.
func (w *world) between(low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + time.Duration(w.rng.Int64N(int64(high-low)))
}

type item struct {
	at     time.Duration
	serial uint64
	do     func()
}

type agenda []item

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].serial < a[j].serial
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(item)) }
func (a *agenda) Pop() any {
	last := len(*a) - 1
	x := (*a)[last]
	(*a)[last] = item{}
	*a = (*a)[:last]
	return x
}
