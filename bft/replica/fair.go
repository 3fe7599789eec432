package replica

import (
	"container/heap"
	"container/list"
)

// flow shares out what is taken among its children: each taking goes to the child that was served
// least, in weight, of those that have something. A flow without children has a queue. A child that
// comes back after having had nothing starts where the others are, so that nobody saves turns up.
// (Start-time fair queueing: Goyal, Vin, Cheng, SIGCOMM 1996; here over a tree.)
//
// A flow is forgotten when nothing is left of it. It is not safe for concurrent use.
type flow struct {
	parent   *flow
	key      any // of the parent's children
	children map[any]*flow
	ready    turns      // the children that have something to be taken
	at       int        // the place among the parent's; -1: not there
	served   int64      // weight that was taken
	begin    int64      // what the child had been served that came last: where others start
	queue    *list.List // of *pooled, oldest first
	bytes    int        // footprint of all that is here and below, also of what was taken
	requests int        // likewise
}

func newFlow(parent *flow, key any) *flow {
	return &flow{parent: parent, key: key, at: -1, children: make(map[any]*flow), queue: list.New()}
}

// child returns the child of a key, which is made when it is not there.
func (f *flow) child(key any) *flow {
	c := f.children[key]
	if c == nil {
		c = newFlow(f, key)
		f.children[key] = c
	}
	return c
}

// hold counts a request of so many bytes as here, or no more when both are negative.
func (f *flow) hold(bytes, requests int) {
	for ; f != nil; f = f.parent {
		f.bytes += bytes
		f.requests += requests
		if f.requests == 0 && f.parent != nil {
			delete(f.parent.children, f.key)
		}
	}
}

// put puts an item into the queue, by its sequence number: what comes back goes before what came later.
func (f *flow) put(item *pooled) {
	at := f.queue.Back()
	for at != nil && at.Value.(*pooled).request.Sequence > item.request.Sequence {
		at = at.Prev()
	}
	if at == nil {
		item.queued = f.queue.PushFront(item)
	} else {
		item.queued = f.queue.InsertAfter(item, at)
	}
	for ; f.parent != nil && f.at < 0; f = f.parent {
		f.served = max(f.served, f.parent.begin)
		heap.Push(&f.parent.ready, f)
	}
}

// next returns whose turn it is below the flow, nil when there is nothing.
func (f *flow) next() *pooled {
	for len(f.ready) > 0 {
		f = f.ready[0]
	}
	if front := f.queue.Front(); front != nil {
		return front.Value.(*pooled)
	}
	return nil
}

// remove takes an item out of the queue; weight is what it counts as served, 0 when it was not
// taken in turn.
func (f *flow) remove(item *pooled, weight int) {
	f.queue.Remove(item.queued)
	item.queued = nil
	for ; f.parent != nil && f.at >= 0; f = f.parent {
		if weight > 0 {
			f.parent.begin = max(f.parent.begin, f.served)
			f.served += int64(weight)
		}
		if f.queue.Len() == 0 && len(f.ready) == 0 {
			heap.Remove(&f.parent.ready, f.at)
		} else {
			heap.Fix(&f.parent.ready, f.at)
		}
	}
}

// turns is a heap of flows, those that were served least first.
type turns []*flow

func (t turns) Len() int           { return len(t) }
func (t turns) Less(i, j int) bool { return t[i].served < t[j].served }
func (t turns) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].at, t[j].at = i, j
}
func (t *turns) Push(x any) {
	x.(*flow).at = len(*t)
	*t = append(*t, x.(*flow))
}
func (t *turns) Pop() any {
	last := (*t)[len(*t)-1]
	(*t)[len(*t)-1] = nil
	*t = (*t)[:len(*t)-1]
	last.at = -1
	return last
}
