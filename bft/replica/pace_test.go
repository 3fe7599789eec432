package replica

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
)

// service is a leader's pool, and a model of what blocks take: as measured with n = 4 on two cores.
type service struct {
	p       *pool
	now     time.Time
	view    bft.View
	results func(client uint64) int // bytes that a request of a client comes to; fresh clients are counted above 16 bits
	came    map[bft.Digest]time.Time
	next    map[uint64]uint64 // sequence number of each client
	pairs   []pair
}

// pair is a client, which asks so many at a time, through somebody, each in so many bytes; and what
// it has seen of it.
type pair struct {
	client  uint64
	o       origin
	flight  int
	size    int
	rest    time.Duration // between an answer and the next request
	due     []time.Time
	waited  []time.Duration
	fresh   bool // each request is of a new client
	clients uint64
	refused *request.Request
}

const (
	blockAtLeast = 5 * time.Millisecond // until the next one is made
	fullBlock    = 75 * time.Millisecond
	answered     = 35 * time.Millisecond // until a block's requests are proven to be executed
)

func (s *service) run(span time.Duration) {
	s.came, s.next = make(map[bft.Digest]time.Time), make(map[uint64]uint64)
	of := make(map[bft.Digest]*pair)
	for i := range s.pairs {
		for j := range s.pairs[i].flight {
			s.pairs[i].due = append(s.pairs[i].due, s.now.Add(time.Duration(j)*7*time.Millisecond))
		}
	}
	ask := func() (soonest time.Time) {
		soonest = s.now.Add(time.Second)
		for i := range s.pairs {
			c := &s.pairs[i]
			c.due = slices.DeleteFunc(c.due, func(at time.Time) bool {
				if at.After(s.now) {
					if at.Before(soonest) {
						soonest = at
					}
					return false
				}
				r := c.refused
				if r == nil {
					r = s.request(c)
				}
				if c.refused = nil; s.p.add(r, c.o, s.now) != nil {
					c.refused = r
					soonest = s.now.Add(10 * time.Millisecond)
					return false
				}
				of[r.Digest()], s.came[r.Digest()] = c, at
				return true
			})
		}
		return soonest
	}
	for end := s.now.Add(span); s.now.Before(end); {
		soonest := ask()
		s.view++
		block, _, rested := s.p.tryTake(s.view, s.now)
		if len(block) == 0 {
			if !rested.IsZero() && rested.Before(soonest) {
				soonest = rested
			}
			s.now = soonest
			continue
		}
		results, total, left := make([]int, len(block)), 0, bft.MaxBlockResults
		for i, r := range block {
			results[i] = min(s.results(binary.BigEndian.Uint64(r.Client)), left)
			left -= results[i]
			total += weight(r) + resultWeight(results[i])
		}
		s.now = s.now.Add(blockAtLeast + fullBlock*time.Duration(total)/blockWeight)
		s.p.settle(s.view, block, results, s.now)
		for _, r := range block {
			c := of[r.Digest()]
			c.waited = append(c.waited, s.now.Add(answered).Sub(s.came[r.Digest()]))
			c.due = append(c.due, s.now.Add(answered+c.rest))
		}
	}
}

func (s *service) request(c *pair) *request.Request {
	client := c.client
	if c.fresh {
		c.clients++
		client += c.clients << 16
	}
	s.next[client]++
	return unsigned(loud{}, client, s.next[client], c.size)
}

type loud struct{}

func (loud) Errorf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (loud) FailNow()                          {}

func percentile(waited []time.Duration, part int) time.Duration {
	slices.Sort(waited)
	return waited[len(waited)*part/100]
}

// Whatever somebody asks for, and in whatever sizes, others who ask for little wait at most twice as
// long as without it, but for the longest of blocks; and it has most of what it would have alone, or
// half of the time when one request of it takes as long as several blocks.
func TestOthersHardlyWait(t *testing.T) {
	const greedy = 1
	twice, half := 2*(blockAtLeast+answered), 0.42
	here, there := [2]origin{{address: "greedy"}, {address: "modest"}}, [2]origin{{peer: 2, source: 1}, {peer: 2, source: 2}}
	for name, c := range map[string]struct {
		pair
		results int
		within  time.Duration // nine of ten of the others
		keeps   float64       // of what it has alone
		handed  bool          // all come through another replica
	}{
		"1 MB":                         {pair{size: 1_000_000, flight: 20}, 0, twice + fullBlock/2, half, false},
		"500 KB":                       {pair{size: 500_000, flight: 30}, 0, twice, half, false},
		"270 KB":                       {pair{size: 270_000, flight: 40}, 0, twice, 0.33, false},
		"130 KB":                       {pair{size: 130_000, flight: 64}, 0, twice, 0.33, false},
		"128 KB":                       {pair{size: 128_000, flight: 64}, 0, twice, 0.6, false},
		"30 KB":                        {pair{size: 30_000, flight: 64}, 0, twice, 0.6, false},
		"results of 8 MB":              {pair{size: 100, flight: 64}, bft.MaxResults, twice, half, false},
		"results of 3 MB":              {pair{size: 100, flight: 64}, 3 << 20, twice, 0.33, false},
		"results of 300 KB":            {pair{size: 100, flight: 64}, 300 << 10, twice, 0.6, false},
		"30 KB, with results of 1 MB":  {pair{size: 30_000, flight: 64}, 1 << 20, twice, 0.6, false},
		"results of 8 MB, fresh keys":  {pair{size: 100, flight: 64, fresh: true}, bft.MaxResults, twice, half, false},
		"2 KB, fresh keys, an address": {pair{size: 2000, flight: 600, fresh: true}, 0, twice, 0.6, false},
		"likewise, handed on":          {pair{size: 2000, flight: 600, fresh: true}, 0, twice, 0.6, true},
	} {
		t.Run(name, func(t *testing.T) {
			origins := here
			if c.handed {
				origins = there
			}
			run := func(pairs ...pair) *service {
				s := &service{p: newPool(poolBytes), now: start, pairs: pairs, results: func(client uint64) int {
					if client&0xffff == greedy {
						return c.results
					}
					return 100
				}}
				s.run(4 * time.Second)
				return s
			}
			c.client, c.o = greedy, origins[0]
			var pairs []pair
			for i := range uint64(4) {
				pairs = append(pairs, pair{client: 10 + i, o: origins[1], flight: 1, size: 128, rest: 100*time.Millisecond + time.Duration(i)*17*time.Millisecond})
			}
			alone, both := run(c.pair), run(append(pairs, c.pair)...)
			var waited []time.Duration
			for _, p := range both.pairs[:len(pairs)] {
				waited = append(waited, p.waited...)
			}
			seen := fmt.Sprintf("%v/%v/%v; %d of %d", percentile(waited, 50), percentile(waited, 90), percentile(waited, 99), len(both.pairs[4].waited), len(alone.pairs[0].waited))
			t.Log(seen)
			require.LessOrEqual(t, percentile(waited, 50), twice, seen)
			require.LessOrEqual(t, percentile(waited, 90), c.within, seen)
			require.GreaterOrEqual(t, float64(len(both.pairs[4].waited)), c.keeps*float64(len(alone.pairs[0].waited)), seen)
		})
	}
}

// Who asks for large requests has their turns beside somebody whose requests turn out to be heavy:
// blocks with these let nothing rest, however steadily they come.
func TestALargeRequestHasItsTurnBesideOthersLargeResults(t *testing.T) {
	const one, often = 1, 20 // of so many fresh keys has large results, which nobody knows before
	run := func(results int) int {
		s := &service{p: newPool(poolBytes), now: start, pairs: []pair{
			{client: 5, o: origin{address: "large"}, flight: 1, size: 500_000},
			{client: one, o: origin{address: "heavy"}, flight: 64, size: 128, fresh: true},
		}}
		s.results = func(client uint64) int {
			if client&0xffff == one && (client>>16)%often == 0 {
				return results
			}
			return 0
		}
		s.run(10 * time.Second)
		return len(s.pairs[0].waited)
	}
	beside := run(0)
	for _, results := range []int{4 << 20, bft.MaxResults} {
		require.GreaterOrEqual(t, run(results), beside/2, "%d bytes", results)
	}
}

// What rests, or waits until the leader has put another large request into a block, keeps nobody
// busy: nothing says that there is something to hand on until there is.
func TestWhatRestsIsNotLookedAtAgain(t *testing.T) {
	p, now := newPool(poolBytes), start
	big := fill(t, p, origin{address: "a"}, 1, 4, large)
	small := fill(t, p, origin{address: "b"}, 2, 2, 100)
	p.ordered(1, nil, now)
	now = now.Add(80 * time.Millisecond)
	p.ordered(2, []*request.Request{big[0], small[0]}, now)
	hand := func() (out []*request.Request, rested time.Time) {
		select {
		case <-p.free:
		default:
		}
		given, rested := p.hand(0, 2, now)
		require.Empty(t, p.free)
		return requestsOf(given), rested
	}
	out, rested := hand()
	same(t, small[1:], out)
	require.Equal(t, 80*time.Millisecond, rested.Sub(now))
	out, _ = hand()
	require.Empty(t, out)
	now = rested
	out, rested = hand()
	same(t, big[1:2], out, "the others wait until it is in a block")
	require.Zero(t, rested)
	out, _ = hand()
	require.Empty(t, out)
	p.carried(3, big[1:2], now)
	require.Len(t, p.free, 1, "it is")
}
