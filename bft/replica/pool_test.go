package replica

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/transport"
)

// unsigned makes a request of a client that is named by a number. The pool looks at no signature.
func unsigned(t require.TestingT, client uint64, sequence uint64, size int) *request.Request {
	raw := make([]byte, ed25519.PublicKeySize, size+128)
	binary.BigEndian.PutUint64(raw, client)
	raw = binary.BigEndian.AppendUint64(raw, sequence)
	raw = append(raw, byte(request.Application), 0, 1, byte(size>>16), byte(size>>8), byte(size))
	raw = append(raw, make([]byte, size+ed25519.SignatureSize)...)
	r, err := request.Parse(raw)
	require.NoError(t, err)
	return r
}

var start = time.Unix(1, 0)

// fill adds requests of one client, the first so many that there is room for, and returns them.
func fill(t testing.TB, p *pool, o origin, client uint64, count, size int) (in []*request.Request) {
	for i := range count {
		r := unsigned(t, client, uint64(i+1), size)
		if p.add(r, o, start) != nil {
			break
		}
		in = append(in, r)
	}
	return in
}

func (p *pool) block(view bft.View) []*request.Request {
	return p.blockAt(view, start)
}

func (p *pool) blockAt(view bft.View, now time.Time) []*request.Request {
	taken, _, _ := p.tryTake(view, now)
	return taken
}

// ordered settles a block whose requests have small results.
func (p *pool) ordered(view bft.View, requests []*request.Request, now time.Time) {
	p.settle(view, requests, make([]int, len(requests)), now)
}

func (p *pool) handed(turn uint64, leader bft.ReplicaID, now time.Time) []*request.Request {
	given, _ := p.hand(turn, leader, now)
	return requestsOf(given)
}

func requestsOf(given []handedOn) (out []*request.Request) {
	for _, g := range given {
		out = append(out, g.request)
	}
	return out
}

// bytesOf counts the bytes that blocks carry of each client.
func bytesOf(blocks ...[]*request.Request) map[uint64]int {
	of := make(map[uint64]int)
	for _, block := range blocks {
		for _, r := range block {
			of[binary.BigEndian.Uint64(r.Client)] += len(r.Raw())
		}
	}
	return of
}

const large = 1<<20 - 1<<12

// Whoever asks for little is in the next block, whatever others have waiting: large requests, many
// small ones, many keys, or what peers have handed on.
func TestLittleIsServedAtOnce(t *testing.T) {
	for name, greedy := range map[string]func(*pool){
		"large requests": func(p *pool) { fill(t, p, origin{address: "greedy"}, 1, 64, large) },
		"many requests":  func(p *pool) { fill(t, p, origin{address: "greedy"}, 1, 64, 100<<10) },
		"many keys": func(p *pool) {
			for client := range uint64(4096) {
				fill(t, p, origin{address: "greedy"}, 100+client, 1, 100)
			}
		},
		"what a peer hands on": func(p *pool) {
			for client := range uint64(4096) {
				fill(t, p, origin{peer: 3}, 100+client, 1, 1000)
			}
		},
		"an address at a peer": func(p *pool) {
			for client := range uint64(4096) {
				fill(t, p, origin{peer: 4, source: 1}, 100+client, 1, 1000)
			}
		},
		"at the same address": func(p *pool) { fill(t, p, origin{address: "modest"}, 1, 64, large) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPool(poolBytes)
			greedy(p)
			p.block(1) // the greedy one has been served before
			modest := fill(t, p, origin{address: "modest"}, 2, 1, 100)
			fill(t, p, origin{peer: 4, source: 2}, 3, 1, 100)
			require.Len(t, modest, 1, "there is room for it")
			got := bytesOf(p.block(2))
			require.Contains(t, got, uint64(2))
			require.Contains(t, got, uint64(3), "that of another replica's client too")
		})
	}
}

// Whoever takes a new key for each request does not keep a key out that was served before, at the
// same address.
func TestNewKeysPassNobodyForEver(t *testing.T) {
	p, fresh, old := newPool(poolBytes), uint64(100), origin{address: "shared"}
	fill(t, p, old, 1, 2, 1000)
	p.ordered(1, p.block(1)[:1], start)
	p.giveBack([]*request.Request{unsigned(t, 1, 2, 1000)})
	for view := bft.View(2); view < 6; view++ {
		for range 1000 { // more than a block takes
			fresh++
			fill(t, p, old, fresh, 1, 2000)
		}
		block := p.block(view)
		if bytesOf(block)[1] > 0 {
			return
		}
		p.ordered(view, block, start)
	}
	t.Fatal("it is in none of the blocks")
}

// Those who have always something waiting share blocks alike, in bytes, however large their
// requests are and however many keys they have.
func TestSharesAreInBytes(t *testing.T) {
	p := newPool(poolBytes)
	fill(t, p, origin{address: "a"}, 1, 60, 300<<10)
	fill(t, p, origin{address: "b"}, 2, 60, 100<<10)
	for client := range uint64(3000) {
		fill(t, p, origin{address: "c"}, 100+client, 1, 2000)
	}
	var blocks [][]*request.Request
	for view := range bft.View(12) {
		block := p.block(view + 1)
		payload := request.AppendPayload(nil, block)
		require.LessOrEqual(t, len(payload), blockWeight)
		blocks = append(blocks, block)
	}
	got := map[string]int{}
	for client, bytes := range bytesOf(blocks...) {
		got[map[bool]string{true: fmt.Sprint(client), false: "many"}[client < 100]] += bytes
	}
	require.Len(t, got, 3)
	for who, bytes := range got {
		require.InDelta(t, 3<<20, bytes, 1<<20, "%s: %v", who, got)
	}
}

// One that takes all it gets leaves as much as it has, and hears when to come back; one key leaves
// room for the others at its address.
func TestThereIsAlwaysRoomForSomebodyElse(t *testing.T) {
	p := newPool(poolBytes)
	requests := 0
	for client := range uint64(200) {
		requests += len(fill(t, p, origin{address: "greedy"}, client, 64, large))
	}
	require.Greater(t, requests, 20)
	require.LessOrEqual(t, p.root.Size(), poolBytes/2)
	err := p.add(unsigned(t, 1, 1000, large), origin{address: "greedy"}, start)
	var busy *transport.BusyError
	require.ErrorAs(t, err, &busy)
	require.Equal(t, mostAway, busy.After, "nothing is ordered")
	require.Error(t, p.admits(unsigned(t, 1, 1000, large), origin{address: "greedy"}))
	for i := range uint64(8) {
		require.NoError(t, p.add(unsigned(t, 1000+i, 1, large), origin{address: fmt.Sprint("other", i)}, start), "another address")
		require.NoError(t, p.add(unsigned(t, 2000+i, 1, large), origin{peer: bft.ReplicaID(i + 1)}, start), "another replica")
	}
	require.NoError(t, p.add(unsigned(t, 1, 9, bft.MaxOperation), origin{}, start), "this process's own is never refused")

	p = newPool(poolBytes)
	fill(t, p, origin{address: "shared"}, 1, 64, large)
	require.Less(t, len(p.byDigest), 64)
	require.NoError(t, p.add(unsigned(t, 2, 1, large), origin{address: "shared"}, start), "another key at the same address")

	p = newPool(poolBytes)
	fill(t, p, origin{address: "a"}, 1, 2*poolPerClient, 10)
	require.Len(t, p.byDigest, poolPerClient, "no more than a session can have outstanding")
}

// Through one peer likewise: an address leaves room for others of the peer's clients, and the peer for
// other peers.
func TestThereIsAlwaysRoomForOthersThroughAPeer(t *testing.T) {
	p := newPool(poolBytes)
	for client := range uint64(200) {
		fill(t, p, origin{peer: 2, source: 1}, client, 64, large)
	}
	require.Greater(t, len(p.byDigest), 10)
	require.Error(t, p.admits(unsigned(t, 1, 1000, large), origin{peer: 2, source: 1}))
	require.NoError(t, p.add(unsigned(t, 1000, 1, large), origin{peer: 2, source: 2}, start), "another address there")
	for client := range uint64(2000) { // the peer makes addresses up
		fill(t, p, origin{peer: 2, source: 3 + client}, 2000+client, 64, large)
	}
	require.LessOrEqual(t, p.root.Size(), poolBytes/2)
	require.NoError(t, p.add(unsigned(t, 9000, 1, large), origin{peer: 3, source: 1}, start), "another peer")
	require.NoError(t, p.add(unsigned(t, 9001, 1, large), origin{address: "a"}, start), "this replica's client")
}

// Requests are handed on with what stands for their address, and however large they are together.
func TestHandOnTellsAddressesApart(t *testing.T) {
	p := newPool(8 * poolBytes)
	fill(t, p, origin{address: "many"}, 1, 1, 100)
	half := make([]byte, bft.MaxOperation-1000)
	largest, err := request.New(bft.Digest{}, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), 1, request.Application, [][]byte{half, half})
	require.NoError(t, err)
	require.NoError(t, p.add(largest, origin{address: "many"}, start))
	fill(t, p, origin{address: "one"}, 3, 20, 10_000)
	given, _ := p.hand(0, 2, start)
	require.Len(t, given, 22)
	sources := make(map[uint64]uint64)
	for _, g := range given {
		sources[binary.BigEndian.Uint64(g.request.Client)] = g.source
	}
	require.Equal(t, sources[1], sources[binary.BigEndian.Uint64(largest.Client)])
	require.NotEqual(t, sources[1], sources[3])
	data := appendHandOn(nil, given)
	require.Greater(t, len(data), bft.MaxPayload)
	back, err := parseHandOn(data)
	require.NoError(t, err)
	same(t, requestsOf(given), requestsOf(back))
	for i := range given {
		require.Equal(t, given[i].source, back[i].source)
	}
	_, err = parseHandOn(data[:len(data)-1])
	require.Error(t, err)
	p.ordered(1, requestsOf(given), start)
	require.Empty(t, p.sources, "nobody is remembered who has nothing here")
}

// Who is refused comes back when what waits is ordered.
func TestWhenToComeBack(t *testing.T) {
	p, now := newPool(poolBytes), start
	in := fill(t, p, origin{address: "greedy"}, 1, 64, large)
	p.ordered(1, in[:1], now)
	for i, r := range in[1:11] {
		now = now.Add(250 * time.Millisecond)
		p.ordered(bft.View(i+2), []*request.Request{r}, now)
	}
	fill(t, p, origin{address: "greedy"}, 2, 64, large)
	var busy *transport.BusyError
	require.ErrorAs(t, p.add(unsigned(t, 2, 1000, large), origin{address: "greedy"}, now), &busy)
	want := float64(p.root.Size()) / (4 << 20)
	require.InDelta(t, want, busy.After.Seconds(), want/2)
}

// What a leader is given and does not put into a block goes to the next one at once; each peer gets
// a body once; and no more is given than fits into a block.
func TestHandOn(t *testing.T) {
	p := newPool(poolBytes)
	small := fill(t, p, origin{address: "a"}, 1, 2, 100)
	foreign := fill(t, p, origin{peer: 4}, 9, 1, 100)
	p.begin(1)
	require.ElementsMatch(t, small, p.handed(1, 2, start))
	require.Empty(t, p.handed(1, 2, start), "it has them")
	require.Equal(t, foreign, p.block(5), "what is with another leader is not proposed here; what peers handed on goes no further")
	p.carried(6, small[:1], start)
	p.begin(2)
	require.Equal(t, small[1:], p.handed(2, 3, start), "the next leader gets what is in no block, at once")
	p.ordered(7, foreign, start) // of view 6 nothing became final
	require.Equal(t, small[:1], p.handed(2, 3, start))
	p.begin(3)
	require.Empty(t, p.handed(3, 2, start), "it was given them before")
	require.Empty(t, p.block(8))
	p.begin(4)
	require.ElementsMatch(t, small, p.block(9), "in this replica's own turn they are proposed here")
	p.giveBack(small)
	p.begin(5)
	require.ElementsMatch(t, small, p.handed(5, 2, start.Add(againAfter)), "who has put them into no block for long may have lost them")
	p.notGiven(2, []handedOn{{request: small[0]}})
	p.begin(6)
	require.Equal(t, small[:1], p.handed(6, 2, start.Add(againAfter)), "and who refused one is given it again")

	p = newPool(poolBytes)
	fill(t, p, origin{address: "a"}, 1, 64, 100<<10)
	given := p.handed(0, 2, start)
	require.Len(t, given, awayWeight/(100<<10+1<<9+200))
	require.Empty(t, p.handed(0, 2, start))
	p.carried(1, given[:3], start)
	require.Len(t, p.handed(0, 2, start), 3, "what is seen in a block makes room")
	require.Empty(t, p.handed(1, 2, start), "the turn has not begun")
	fill(t, p, origin{address: "b"}, 2, 1, large)
	p.begin(1)
	require.NotEmpty(t, p.handed(1, 2, start))
}

// same compares requests by what names them.
func same(t *testing.T, want, got []*request.Request, why ...any) {
	t.Helper()
	names := func(requests []*request.Request) (names []bft.Digest) {
		for _, r := range requests {
			names = append(names, r.Digest())
		}
		return names
	}
	require.Equal(t, names(want), names(got), why...)
}

// While others are served, blocks without large requests have half of the time: after one with a
// large request, what is small goes before the next for as long as that block took.
func TestLargeRequestsRest(t *testing.T) {
	p, now := newPool(poolBytes), start
	big := fill(t, p, origin{address: "a"}, 1, 8, large)
	sequence := uint64(0)
	small := func() *request.Request {
		sequence++
		r := unsigned(t, 2, sequence, 100)
		require.NoError(t, p.add(r, origin{address: "b"}, now))
		return r
	}
	pass := func(d time.Duration) { now = now.Add(d) }
	view := bft.View(0)
	order := func() []*request.Request {
		view++
		return p.blockAt(view, now)
	}
	done := func(took time.Duration, requests []*request.Request) {
		pass(took)
		p.ordered(view, requests, now)
	}
	for i := range 3 {
		block := order()
		same(t, big[i:i+1], block, "nobody else is there")
		done(80*time.Millisecond, block)
	}
	one := small()
	require.Contains(t, order(), one)
	done(10*time.Millisecond, []*request.Request{one})
	require.Empty(t, order(), "the last large one took longer than that")
	done(70*time.Millisecond, nil)
	block := order()
	same(t, big[3:4], block, "it has rested")
	two := small()
	same(t, []*request.Request{two}, order(), "it is not final")
	require.Empty(t, order(), "two that wait are not taken meanwhile")
	done(80*time.Millisecond, append(block, two))
	three := small()
	pass(79 * time.Millisecond)
	same(t, []*request.Request{three}, order())
	done(0, []*request.Request{three})
	taken, _, rested := p.tryTake(view+1, now)
	require.Empty(t, taken)
	require.Equal(t, time.Millisecond, rested.Sub(now))
	pass(time.Millisecond)
	same(t, big[4:5], order(), "it took 80 ms, and they have passed")
	view += 2 // that block is given up
	p.ordered(view, nil, now)
	same(t, big[4:5], order())
	pass(lately)
	same(t, big[5:6], order(), "nobody small was served lately: it need not even be final")
}

// A leader that waits for something to order begins when a large request has rested.
func TestALeaderWaitsForWhatRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(poolBytes)
		big := fill(t, p, origin{address: "a"}, 1, 3, large)
		one := unsigned(t, 2, 1, 100)
		require.NoError(t, p.add(one, origin{address: "b"}, time.Now()))
		p.ordered(1, nil, time.Now())
		block := p.take(t.Context(), 2, 0)
		<-time.After(60 * time.Millisecond)
		p.ordered(2, append(block, one), time.Now())
		before := time.Now()
		same(t, big[1:2], p.take(t.Context(), 3, time.Second))
		require.Equal(t, 60*time.Millisecond, time.Since(before))
		before = time.Now()
		time.AfterFunc(30*time.Millisecond, func() { p.ordered(4, nil, time.Now()) })
		same(t, big[1:2], p.take(t.Context(), 5, time.Second), "the block that carried it was given up")
		require.Equal(t, 30*time.Millisecond, time.Since(before))
	})
}

// Whatever is done with it, the pool loses nothing, keeps nothing that is ordered, and counts right.
func TestPoolKeepsWhatItIsGiven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, now := newPool(poolBytes), start
		waiting := make(map[bft.Digest]*request.Request)
		var next uint64
		view, turn := bft.View(1), uint64(0)
		some := func() (out []*request.Request) {
			for _, r := range waiting {
				out = append(out, r)
			}
			slices.SortFunc(out, func(a, b *request.Request) int { return bytes.Compare(a.Raw()[:40], b.Raw()[:40]) })
			if len(out) == 0 {
				return nil
			}
			from := rapid.IntRange(0, len(out)-1).Draw(t, "from")
			return out[from:min(len(out), from+rapid.IntRange(0, 4).Draw(t, "count"))]
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				next++
				r := unsigned(t, rapid.Uint64Range(1, 5).Draw(t, "client"), next, rapid.SampledFrom([]int{1, 1000, 300 << 10, 1 << 20}).Draw(t, "size"))
				o := rapid.SampledFrom([]origin{{}, {address: "a"}, {address: "b"}, {peer: 2, source: 1}, {peer: 2, source: 2}, {peer: 3}}).Draw(t, "origin")
				if p.add(r, o, now) == nil {
					waiting[r.Digest()] = r
				} else if o == (origin{}) {
					t.Fatal("this process's own was refused")
				}
			},
			"add again": func(t *rapid.T) {
				for _, r := range some() {
					if err := p.add(r, rapid.SampledFrom([]origin{{address: "c"}, {peer: 4}}).Draw(t, "origin"), now); err != nil {
						t.Fatal(err)
					}
				}
			},
			"block":   func(*rapid.T) { view++; p.blockAt(view, now) },
			"refuse":  func(*rapid.T) { view++; p.giveBack(p.block(view)) },
			"carried": func(t *rapid.T) { p.carried(view+bft.View(rapid.IntRange(0, 2).Draw(t, "ahead")), some(), now) },
			"settle": func(t *rapid.T) {
				now = now.Add(time.Millisecond)
				final := some()
				results := make([]int, len(final))
				for i := range results {
					results[i] = rapid.SampledFrom([]int{0, 1000, bft.MaxResults}).Draw(t, "results")
				}
				p.settle(view, final, results, now)
				for _, r := range final {
					delete(waiting, r.Digest())
				}
			},
			"begin":   func(*rapid.T) { turn++; p.begin(turn) },
			"hand":    func(t *rapid.T) { p.handed(turn, bft.ReplicaID(rapid.IntRange(2, 4).Draw(t, "to")), now) },
			"release": func(*rapid.T) { p.release() },
			"": func(t *rapid.T) {
				bytes, away, sources := 0, 0, make(map[string]bool)
				for _, item := range p.byDigest {
					bytes += footprint(item.request)
					if item.origin.peer == 0 {
						sources[item.origin.address] = true
						if p.sources[item.origin.address] == 0 {
							t.Fatal("nothing stands for an address")
						}
					}
					if item.away {
						away += item.cost
					}
					places := 0
					for _, in := range []bool{item.queued.Waits(), item.view != 0, item.away, item.aside} {
						if in {
							places++
						}
					}
					if places != 1 {
						t.Fatalf("a request is in %d places", places)
					}
				}
				if len(p.sources) != len(sources) {
					t.Fatalf("%d addresses of %d", len(p.sources), len(sources))
				}
				if len(p.byDigest) != len(waiting) || p.root.Size() != bytes || p.given[0]+p.given[1] != away {
					t.Fatalf("%d requests of %d, %d bytes of %d, %d away of %d", len(p.byDigest), len(waiting), p.root.Size(), bytes, p.given, away)
				}
			},
		})
		p.release()
		for p.blockAt(1, now.Add(time.Minute)) != nil {
		}
		for _, item := range p.byDigest {
			if item.view != 1 {
				t.Fatal("a request is never taken")
			}
		}
		for _, r := range waiting {
			p.ordered(0, []*request.Request{r}, now)
		}
		if p.root.Size() != 0 || len(p.byDigest) != 0 || len(p.keys) != 0 || p.mine.Children() != 0 || p.root.Children() != 1 {
			t.Fatalf("something is left: %d bytes, %d keys", p.root.Size(), len(p.keys))
		}
	})
}
