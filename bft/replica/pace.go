package replica

import (
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
)

// Whoever asks for little is in the next block, but that takes as long as all that is in it. So while
// somebody asks for little beside somebody who asks for much, a block carries largeWeight at most, or
// one request that weighs more; and these rest after a block that weighed more, for as long as it
// took. Blocks of that size cost a tenth more than full ones in processor time, those of half of it
// nearly twice as much.
const (
	largeWeight = blockWeight / 8
	// littleOf is what little is: such a part of the most that somebody has of a block.
	littleOf = 16
	// lately is how long that counts: longer than a block takes.
	lately   = 500 * time.Millisecond
	mostRest = 250 * time.Millisecond
)

// pace tells how much a block may carry, and what rests. What counts is what a request weighs with
// its results. Their size is known when it was executed; until then it is taken to have as many as its
// client's requests had lately, and those of clients that are not known, as those had. It is not
// safe for concurrent use.
type pace struct {
	keys      contest[[32]byte]
	addresses contest[origin] // of clients, at the replica that they ask

	results   [2]map[[32]byte]int // what results of a client's requests weigh: since the map was new, and before that
	strangers int                 // what those of clients weighed of whom there was nothing

	final bft.View  // of the last block that was settled
	heavy bft.View  // the last that carries a large request: none is taken until it is final or given up,
	rest  time.Time // and until then
	began time.Time // when there was that block
}

// knownClients bounds a map of what is known of clients.
const knownClients = 4096

// resultWeight is what results weigh, in bytes: as many as a block may have weigh as much as a block.
func resultWeight(bytes int) int { return bytes / (bft.MaxBlockResults / blockWeight) }

// cost is what a request is taken to weigh.
func (p *pace) cost(r *request.Request) int {
	for _, known := range p.results {
		if results, there := known[[32]byte(r.Client)]; there {
			return weight(r) + results
		}
	}
	return weight(r) + p.strangers
}

// learn takes note of what the results of a client's request weigh. What was more counts less with
// each that is less.
func (p *pace) learn(client [32]byte, results int) {
	expected, known := p.results[0][client]
	if !known {
		if expected, known = p.results[1][client]; !known {
			p.strangers += (results - p.strangers) / 8
		}
	}
	if len(p.results[0]) == knownClients || p.results[0] == nil {
		p.results[0], p.results[1] = make(map[[32]byte]int), p.results[0]
	}
	p.results[0][client] = max(results, expected-(expected-results+7)/8)
}

// ends is until when somebody counts as asking for little beside somebody who asks for much.
func (p *pace) ends() time.Time {
	if a, b := p.keys.ends(), p.addresses.ends(); a.After(b) {
		return a
	} else {
		return b
	}
}

func (p *pace) contested(now time.Time) bool { return now.Before(p.ends()) }

// room is what a block may carry now, beside a request that is large.
func (p *pace) room(now time.Time) int {
	if p.contested(now) {
		return largeWeight
	}
	return blockWeight
}

// resting says whether large requests rest, and until when at most, as far as that is known.
func (p *pace) resting(now time.Time) (rests bool, until time.Time) {
	until = p.ends()
	if p.heavy <= p.final && p.rest.Before(until) {
		until = p.rest
	}
	return now.Before(until), until
}

// carries takes note of a block that carries a large request.
func (p *pace) carries(view bft.View, now time.Time) {
	if view > p.heavy {
		p.heavy, p.began = view, now
	}
}

// took takes note of a final block, whether it carried a large request, and when there was the one
// before. Blocks that only turned out to be heavy let nothing rest: a steady stream of them, of keys
// that nobody knows, would let large requests rest for ever.
func (p *pace) took(view bft.View, large bool, before, now time.Time) {
	p.final = max(p.final, view)
	if view == p.heavy && p.began.After(before) {
		before = p.began
	}
	if large {
		p.rest = now.Add(min(now.Sub(before), mostRest)) // for as long as others waited for this block
	}
}

// contest compares what some have of blocks.
type contest[K comparable] struct {
	most   int       // that one had of a block that weighed something
	much   time.Time // when there was such a block
	little time.Time // when somebody had little of one, compared with that
}

// note takes note of what each had of a block.
func (c *contest[K]) note(parts map[K]int, now time.Time) {
	total, most := 0, 0
	for _, part := range parts {
		total, most = total+part, max(most, part)
	}
	if total >= largeWeight/2 {
		c.most, c.much = max(most, c.most/2), now
	}
	for _, part := range parts {
		if part <= c.most/littleOf {
			c.little = now
		}
	}
}

// ends is until when both count as there.
func (c *contest[K]) ends() time.Time {
	if c.much.Before(c.little) {
		return c.much.Add(lately)
	}
	return c.little.Add(lately)
}
