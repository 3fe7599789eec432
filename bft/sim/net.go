package sim

import (
	"time"

	"github.com/reseal-bft/reseal/bft"
)

// network carries messages between machines: late, in any order, twice, or not at all, as the faults of the moment say.
type network struct {
	c *cluster
	// low and high bound the delay of a message.
	low, high time.Duration
	loss      float64
	twice     float64
	// group separates the machines when the network is partitioned: messages pass within a group.
	group map[*replica]int
	sent  int
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
	n.sent++
	if n.group[from] != n.group[to] || n.c.world.chance(n.loss) {
		return
	}
	if n.c.world.chance(n.twice) {
		n.arrive(from, to, m)
	}
	n.arrive(from, to, m)
}

func (n *network) arrive(from, to *replica, m bft.Message) {
	n.c.world.after(n.delay(from, to), func() {
		if n.group[from] == n.group[to] {
			to.deliver(from.id, m)
		}
	})
}

func (n *network) delay(from, to *replica) time.Duration {
	d := n.c.world.between(n.low, n.high)
	if n.c.schedule != nil {
		d += n.c.schedule(from, to)
	}
	return d
}

// request asks a peer that may be able to answer, hinted ones first, and delivers the answer after a round trip.
func (n *network) request(r *replica, hint []bft.ReplicaID, read func(*replica) []*bft.Block, answer func([]*bft.Block)) {
	var peer *replica
	if len(hint) > 0 && n.c.world.chance(0.7) {
		peer = n.c.byID(hint[n.c.world.rng.IntN(len(hint))])
	} else {
		peer = n.c.replicas[n.c.world.rng.IntN(len(n.c.replicas))]
	}
	if peer == nil || peer.id == r.id || n.group[peer] != n.group[r] || peer.evil != nil && n.c.world.chance(0.5) {
		return
	}
	r.later(n.delay(r, peer)+n.delay(peer, r), func() {
		if blocks := read(peer); peer.up && len(blocks) > 0 {
			answer(blocks)
		}
	})
}
