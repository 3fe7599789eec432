package fair

import (
	"container/heap"
	"container/list"
)

// Node is one of those that turns are shared out among: a leaf has a queue of what waits, any other
// node has children. A node that comes back after having had nothing starts where its siblings are,
// so that nobody saves turns up. It is not safe for concurrent use.
type Node[T any] struct {
	parent   *Node[T]
	key      any // of the parent's children
	children map[any]*Node[T]
	ready    ready[T] // the children that have something waiting
	at       int      // the place among the parent's; -1: not there
	served   int64
	begin    int64     // where children start that come anew: see Begin and Charge
	queue    list.List // of *Item[T], next first
	size     int       // of all that is here and below, see Hold
	count    int       // likewise
}

// Item is one that waits at a leaf, or waited.
type Item[T any] struct {
	Value T
	leaf  *Node[T]
	place *list.Element // nil: it is not in the queue
}

// New makes a root.
func New[T any]() *Node[T] { return &Node[T]{at: -1} }

// Child returns the child of a key, which is made when it is not there. It is forgotten when nothing
// is held there any more, see [Node.Hold].
func (n *Node[T]) Child(key any) *Node[T] {
	c := n.children[key]
	if c == nil {
		if n.children == nil {
			n.children = make(map[any]*Node[T])
		}
		c = &Node[T]{parent: n, key: key, at: -1, served: n.begin}
		n.children[key] = c
	}
	return c
}

// Find returns the child of a key, nil when it is not there, like the node itself.
func (n *Node[T]) Find(key any) *Node[T] {
	if n == nil {
		return nil
	}
	return n.children[key]
}

// Children is the number of children that are not forgotten.
func (n *Node[T]) Children() int { return len(n.children) }

// Hold counts something of a size as present at a node, and so at those above; with both negative,
// as present no more. What is present may wait, or have had its turn.
func (n *Node[T]) Hold(size, count int) {
	for ; n != nil; n = n.parent {
		n.size += size
		n.count += count
		if n.count == 0 && n.parent != nil {
			delete(n.parent.children, n.key)
		}
	}
}

// Size is that of all that is present at the node and below.
func (n *Node[T]) Size() int {
	if n == nil {
		return 0
	}
	return n.size
}

// Put adds to the queue of a leaf: before those at its end that it comes before; nil stands for
// none.
func (n *Node[T]) Put(value T, before func(T) bool) *Item[T] {
	item := &Item[T]{Value: value, leaf: n}
	at := n.queue.Back()
	for before != nil && at != nil && before(at.Value.(*Item[T]).Value) {
		at = at.Prev()
	}
	if at == nil {
		item.place = n.queue.PushFront(item)
	} else {
		item.place = n.queue.InsertAfter(item, at)
	}
	for ; n.parent != nil && n.at < 0; n = n.parent {
		n.served = max(n.served, n.parent.begin)
		heap.Push(&n.parent.ready, n)
	}
	return item
}

// Next returns whose turn it is below a node, nil when nothing waits.
func (n *Node[T]) Next() *Item[T] {
	for len(n.ready) > 0 {
		n = n.ready[0]
	}
	if front := n.queue.Front(); front != nil {
		return front.Value.(*Item[T])
	}
	return nil
}

// Waits says whether an item is in its queue.
func (i *Item[T]) Waits() bool { return i != nil && i.place != nil }

// Remove takes an item out of its queue, which has had no turn.
func (i *Item[T]) Remove() {
	n := i.leaf
	n.queue.Remove(i.place)
	i.place = nil
	for ; n.parent != nil && n.queue.Len() == 0 && len(n.ready) == 0; n = n.parent {
		heap.Remove(&n.parent.ready, n.at)
	}
}

// Take takes an item out of its queue, whose turn has come, or was not waited for.
func (i *Item[T]) Take(cost int64) {
	n := i.leaf
	i.Remove()
	n.Begin()
	n.Charge(cost)
}

// Begin notes that a leaf has a turn. Whoever comes anew starts where it does, at least.
func (n *Node[T]) Begin() {
	for ; n.parent != nil; n = n.parent {
		n.parent.begin = max(n.parent.begin, n.served)
	}
}

// Charge counts what a leaf was served. Where others start moves on with it, by somewhat less than
// the share of each that waits: so those that come anew one after the other pass nobody for ever.
func (n *Node[T]) Charge(cost int64) {
	for ; n.parent != nil; n = n.parent {
		n.served += cost
		n.parent.begin += cost / int64(len(n.parent.ready)+2)
		if n.at >= 0 {
			heap.Fix(&n.parent.ready, n.at)
		}
	}
}

// ready is a heap of nodes, those that were served least first.
type ready[T any] []*Node[T]

func (r ready[T]) Len() int           { return len(r) }
func (r ready[T]) Less(i, j int) bool { return r[i].served < r[j].served }
func (r ready[T]) Swap(i, j int) {
	r[i], r[j] = r[j], r[i]
	r[i].at, r[j].at = i, j
}
func (r *ready[T]) Push(x any) {
	n := x.(*Node[T])
	n.at = len(*r)
	*r = append(*r, n)
}
func (r *ready[T]) Pop() any {
	last := (*r)[len(*r)-1]
	(*r)[len(*r)-1] = nil
	*r = (*r)[:len(*r)-1]
	last.at = -1
	return last
}
