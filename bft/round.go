package bft

import "slices"

// round is what a replica knows of one view.
type round struct {
	view View
	// nodes are the view's blocks: what the leader proposed, and what was fetched because it is
	// notarized.
	nodes []*node
	// own are this replica's votes in the order in which they were cast; without a partial
	// signature until that is made.
	own []Vote
	// first has, for each replica whose first vote was seen, the index of its tally plus one.
	first []uint16
	seen  int
	// notarizes counts the notarize votes of each replica: first, and fallback votes.
	notarizes []uint8
	tallies   []tally

	// header and digest are the first header heard of that the leader signed; two convict it.
	heard     bool
	header    SignedHeader
	digest    Digest
	convicted bool
	evidence  Evidence

	// proposed: this replica leads the view and has made its block.
	proposed    bool
	notarizedAt int64
	// height is that of the view's final block, 0 when there is none.
	height Height
	// spread: this replica's finalize vote is for all. Otherwise it is for those that asked.
	spread bool
	askers []ReplicaID
	// shut: the view was left long ago, and what is left to count are finalize votes for a
	// notarized block.
	shut bool
}

// tally counts the votes for one statement.
type tally struct {
	Statement
	firsts int
	// votes counts the partial signatures, by replica.
	votes    int
	partials [][]byte
	// combining and verifying: an answer is awaited that may bring the certificate.
	combining   bool
	verifying   int
	certificate []byte
}

// find returns the tally of a statement, nil when nothing was heard of it.
func (r *round) find(kind VoteKind, block Digest) *tally {
	for i := range r.tallies {
		if t := &r.tallies[i]; t.Kind == kind && t.Block == block {
			return t
		}
	}
	return nil
}

// tally returns the tally of a statement, made when there is none.
func (c *Core) tally(r *round, kind VoteKind, block Digest) *tally {
	if t := r.find(kind, block); t != nil {
		return t
	}
	var partials [][]byte
	if i := len(r.tallies); i < cap(r.tallies) {
		partials = r.tallies[:i+1][i].partials // what an earlier view allocated
	}
	if partials == nil {
		partials = make([][]byte, len(c.peers))
	}
	r.tallies = append(r.tallies, tally{Statement: Statement{c.cfg.Epoch, r.view, kind, block}, partials: partials})
	return &r.tallies[len(r.tallies)-1]
}

// certified returns the first tally of a kind that has its certificate.
func (r *round) certified(kind VoteKind) *tally {
	for i := range r.tallies {
		if t := &r.tallies[i]; t.Kind == kind && t.certificate != nil {
			return t
		}
	}
	return nil
}

// node returns the node of the view with the given digest.
func (r *round) node(digest Digest) *node {
	for _, n := range r.nodes {
		if n.digest == digest {
			return n
		}
	}
	return nil
}

// countFirst counts a replica's first vote, unless it has cast another.
func (r *round) countFirst(from ReplicaID, kind VoteKind, block Digest) {
	if r.first[from] != 0 {
		return
	}
	for i := range r.tallies {
		if t := &r.tallies[i]; t.Kind == kind && t.Block == block {
			r.first[from] = uint16(i + 1)
			r.seen++
			t.firsts++
			return
		}
	}
}

// views holds the rounds from low on.
type views struct {
	low  View
	list []*round // by view - low; nil where nothing is known
	free []*round
}

// at returns the round of a view, nil when nothing is known of it.
func (c *Core) at(v View) *round {
	if v < c.views.low || v-c.views.low >= View(len(c.views.list)) {
		return nil
	}
	return c.views.list[v-c.views.low]
}

// ensure returns the round of a view, made when there is none. It is nil for views out of bounds.
func (c *Core) ensure(v View) *round {
	s := &c.views
	if v < s.low || v > c.lastView()+VotesAhead {
		return nil
	}
	for View(len(s.list)) <= v-s.low {
		s.list = append(s.list, nil)
	}
	if r := s.list[v-s.low]; r != nil {
		return r
	}
	var r *round
	if last := len(s.free) - 1; last >= 0 {
		r, s.free = s.free[last], s.free[:last]
	} else {
		n := len(c.peers)
		r = &round{first: make([]uint16, n), notarizes: make([]uint8, n)}
	}
	r.view = v
	s.list[v-s.low] = r
	return r
}

// lastView is the highest view that a replica enters before another block is final.
func (c *Core) lastView() View { return c.finalView + maxViews }

// shutBelow shuts the views that lie so far below the current one that no vote in them changes what
// may be built upon.
func (c *Core) shutBelow() {
	for ; c.shut+BlocksAhead < c.view; c.shut++ {
		if r := c.at(c.shut); r != nil {
			c.close(r)
		}
	}
}

// close lets go of what a view that was left long ago is not held for: votes but for finality, and
// blocks that are not notarized.
func (c *Core) close(r *round) {
	r.shut = true
	for i := range r.tallies {
		if t := &r.tallies[i]; t.Kind != Finalize {
			t.partials, t.votes = nil, 0
		}
	}
	r.nodes = slices.DeleteFunc(r.nodes, func(n *node) bool {
		if !n.notarized {
			delete(c.tree, n.digest)
			c.noOrphan(n)
		}
		return !n.notarized
	})
}

// eachRound calls f for the known rounds from a view on, in order.
func (c *Core) eachRound(from View, f func(*round)) {
	from = max(from, c.views.low)
	for i := from - c.views.low; i < View(len(c.views.list)); i++ {
		if r := c.views.list[i]; r != nil {
			f(r)
		}
	}
}

// prune forgets the views that are far enough below the final one.
func (c *Core) prune() {
	s := &c.views
	low := s.low
	if c.finalView > viewsBehind {
		low = max(low, c.finalView-viewsBehind)
	}
	drop := min(int(low-s.low), len(s.list))
	for _, r := range s.list[:drop] {
		if r != nil {
			r.reset()
			s.free = append(s.free, r)
		}
	}
	kept := copy(s.list, s.list[drop:])
	clear(s.list[kept:])
	s.list = s.list[:kept]
	s.low = low
}

// reset empties a round for another view, keeping what it has allocated.
func (r *round) reset() {
	for i := range r.tallies {
		clear(r.tallies[i].partials)
	}
	clear(r.first)
	clear(r.notarizes)
	clear(r.nodes)
	clear(r.own)
	*r = round{first: r.first, notarizes: r.notarizes, nodes: r.nodes[:0], own: r.own[:0], tallies: r.tallies[:0], askers: r.askers[:0]}
}
