package sim

import (
	"time"

	"github.com/reseal-bft/reseal/bft"
)

// network carries messages between machines: late, in any order, twice, or not at all, as the
// faults of the moment say.
type network struct {
	c *cluster
	// low and high bound the delay of a message.
	low, high time.Duration
	loss      float64
	twice     float64
	// fifo: messages between two machines keep their order.
	fifo bool
	last map[[2]*replica]time.Duration
	// group separates the machines when the network is partitioned: messages pass within a group.
	group map[*replica]int
	// schedule is the adversary's: a delay in addition.
	schedule func(from, to *replica) time.Duration
	// twin says which of two twins a machine talks with for now.
	twin map[*replica]int
}

func newNetwork(c *cluster) *network {
	n := &network{c: c, last: make(map[[2]*replica]time.Duration), group: make(map[*replica]int), twin: make(map[*replica]int)}
	n.calm()
	return n
}

// calm ends all faults of the network.
func (n *network) calm() {
	n.low, n.high = time.Millisecond, 5*time.Millisecond
	n.loss, n.twice, n.fifo = 0, 0, true
	clear(n.group)
}

// broadcast sends a message to every other machine.
func (n *network) broadcast(from *replica, m bft.Message) {
	for _, to := range n.c.replicas {
		if to.id != from.id {
			n.post(from, to, m)
		}
	}
}

// send sends a message to one identity.
func (n *network) send(from *replica, to bft.ReplicaID, m bft.Message) {
	for _, r := range n.c.replicas {
		if r.id == to {
			n.post(from, r, m)
		}
	}
}

// post gives the adversary its say and puts what is left on the wire.
func (n *network) post(from, to *replica, m bft.Message) {
	if from.evil == nil {
		n.carry(from, to, m)
		return
	}
	for _, forged := range from.evil.send(from, to, m) {
		n.carry(from, to, forged)
	}
}

func (n *network) carry(from, to *replica, m bft.Message) {
	if !n.connected(from, to) || n.c.world.chance(n.loss) {
		return
	}
	if n.c.world.chance(n.twice) {
		n.arrive(from, to, m)
	}
	n.arrive(from, to, m)
}

// connected reports whether a message can pass: within a group, and for twins with the one that the
// other side talks with.
func (n *network) connected(from, to *replica) bool {
	if n.group[from] != n.group[to] {
		return false
	}
	_, twins := from.evil.(honest)
	if twins && n.twin[to] != from.twin {
		return false
	}
	_, twins = to.evil.(honest)
	return !twins || n.twin[from] == to.twin
}

// shuffleTwins lets each machine talk with one of the twins for a while.
func (n *network) shuffleTwins() {
	for _, r := range n.c.replicas {
		n.twin[r] = n.c.world.rng.IntN(2)
	}
	n.c.world.after(n.c.world.between(50*time.Millisecond, 500*time.Millisecond), n.shuffleTwins)
}

func (n *network) arrive(from, to *replica, m bft.Message) {
	d := n.delay(from, to)
	if n.fifo {
		pair := [2]*replica{from, to}
		d = max(d, n.last[pair]-n.c.world.now)
		n.last[pair] = n.c.world.now + d
	}
	n.c.world.after(d, func() {
		if n.connected(from, to) {
			to.deliver(from.id, m)
		}
	})
}

func (n *network) delay(from, to *replica) time.Duration {
	d := n.c.world.between(n.low, n.high)
	if n.schedule != nil {
		d += n.schedule(from, to)
	}
	return d
}

// request reads from a peer that may be able to answer, hinted ones first, and delivers the answer
// after a round trip.
func request[T any](n *network, r *replica, hint []bft.ReplicaID, read func(*replica) (T, bool), answer func(T)) {
	peer := n.c.replicas[n.c.world.rng.IntN(len(n.c.replicas))]
	if len(hint) > 0 && n.c.world.chance(0.7) {
		peer = n.c.byID(hint[n.c.world.rng.IntN(len(hint))])
	}
	if peer == nil || peer.id == r.id || !n.connected(r, peer) || peer.evil != nil && n.c.world.chance(0.5) {
		return
	}
	r.later(n.delay(r, peer)+n.delay(peer, r), func() {
		if value, ok := read(peer); ok && peer.up {
			answer(value)
		}
	})
}
