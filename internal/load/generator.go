package load

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/reseal-bft/reseal/bft/request"
)

// Store is a client of the store that is asked. Its methods return only what was verified, and try
// on until ctx ends. Safe for concurrent use.
type Store interface {
	// Put sets keys, all in one request.
	Put(ctx context.Context, pairs []Pair) error
	// Get returns the values of the keys, nil where there is none.
	Get(ctx context.Context, keys []string) ([][]byte, error)
}

// Pair is a key and its value.
type Pair struct {
	Key   string
	Value []byte
}

// Request is one that was made, and what came of it.
type Request struct {
	Client int // from 0
	// Pairs are what was written; Keys, with the Values that were found, what was read.
	Pairs  []Pair
	Keys   []string
	Values [][]byte
	// Due is when the request was to be made by the plan, Sent when it was, and Done when the
	// answer was there.
	Due, Sent, Done time.Time
	// Err is why there is no answer that can be believed. A write may then be executed all the
	// same, once, at any time.
	Err error

	touched []touch // the operations, for the history
}

// touch is what an operation wrote to a key or found there.
type touch struct {
	key   uint64
	value uint64 // its number; 0: none was found
}

// Operations is the number of operations.
func (r *Request) Operations() int { return len(r.Pairs) + len(r.Keys) }

// bytes is the size of the values that were written or read.
func (r *Request) bytes() (n int) {
	for _, p := range r.Pairs {
		n += len(p.Value)
	}
	for _, v := range r.Values {
		n += len(v)
	}
	return n
}

// Generator makes requests by a plan. It can be run once.
type Generator struct {
	Plan Plan
	// Stores are the clients, as many as the plan has.
	Stores []Store
	// Prefix begins every key, so that what others wrote is not met.
	Prefix string
	// Watch is told of every request when it is done, by several goroutines at once.
	Watch func(*Request)

	seed    uint64
	clients []*user
}

// user is one client's part of the work.
type user struct {
	number int
	store  Store

	mu      sync.Mutex
	random  *rand.Rand
	written uint64   // writes made
	recent  []uint64 // the last keys of its own whose writes were acknowledged; with Plan.Keys 0
}

// recentKeys bounds the keys of its own that a client reads again.
const recentKeys = 1024

// maxUnderWay is the number of requests under way of one client with a rate: what a session bears.
const maxUnderWay = request.Window

// ErrLost says that an acknowledged write was not read back, and ErrForged that what was read is
// nothing that was written.
var (
	ErrLost   = errors.New("an acknowledged write was not read back")
	ErrForged = errors.New("a value was read that nobody wrote")
)

// Run makes requests until the plan's duration is over, and waits until all have come to an end;
// when ctx ends, those under way are given up.
func (g *Generator) Run(ctx context.Context) {
	g.seed = rand.Uint64()
	for i, s := range g.Stores {
		g.clients = append(g.clients, &user{number: i, store: s, random: rand.New(rand.NewPCG(g.seed, uint64(i)))})
	}
	end := time.Time{}
	if g.Plan.Duration > 0 {
		end = time.Now().Add(g.Plan.Duration)
	}
	if g.Plan.Rate > 0 {
		g.runOpen(ctx, end)
		return
	}
	var workers sync.WaitGroup
	for _, c := range g.clients {
		for range max(1, g.Plan.InFlight) {
			workers.Go(func() {
				for ctx.Err() == nil && (end.IsZero() || time.Now().Before(end)) {
					g.do(ctx, c, g.next(c), time.Now())
				}
			})
		}
	}
	workers.Wait()
}

// runOpen makes requests when they are due, whatever became of those before. When all that the
// clients' sessions bear are under way, the next ones are made later, and are counted from when
// they were due.
func (g *Generator) runOpen(ctx context.Context, end time.Time) {
	random := rand.New(rand.NewPCG(g.seed, math.MaxUint64))
	room := semaphore.NewWeighted(int64(len(g.clients)) * maxUnderWay)
	var underWay sync.WaitGroup
	defer underWay.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	due := time.Now()
	for i := 0; ; i++ {
		c := g.clients[i%len(g.clients)]
		r := g.next(c)
		due = due.Add(time.Duration(random.ExpFloat64() * float64(r.Operations()) / g.Plan.Rate * float64(time.Second)))
		if !end.IsZero() && due.After(end) {
			return
		}
		timer.Reset(time.Until(due))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		if room.Acquire(ctx, 1) != nil {
			return
		}
		was := due
		underWay.Go(func() {
			defer room.Release(1)
			g.do(ctx, c, r, was)
		})
	}
}

// do makes a request, and tells who watches.
func (g *Generator) do(ctx context.Context, c *user, r *Request, due time.Time) {
	limited, cancel := ctx, context.CancelFunc(func() {})
	if g.Plan.Timeout > 0 {
		limited, cancel = context.WithTimeout(ctx, g.Plan.Timeout)
	}
	defer cancel()
	r.Due, r.Sent = due, time.Now()
	if len(r.Pairs) > 0 {
		r.Err = c.store.Put(limited, r.Pairs)
	} else if r.Values, r.Err = c.store.Get(limited, r.Keys); r.Err == nil {
		r.Err = g.look(r)
	}
	r.Done = time.Now()
	if r.Err == nil && len(r.Pairs) > 0 && g.Plan.Keys == 0 {
		c.remember(r)
	}
	g.Watch(r)
}

// next draws a client's next request.
func (g *Generator) next(c *user) *Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &Request{Client: c.number}
	count := g.Plan.Envelope.draw(c.random)
	if c.random.Float64() < g.Plan.Reads && (g.Plan.Keys > 0 || len(c.recent) > 0) {
		for range count {
			key := g.drawKey(c)
			r.Keys = append(r.Keys, g.key(key))
			r.touched = append(r.touched, touch{key: key})
		}
		return r
	}
	for range count {
		c.written++
		number := uint64(c.number)<<40 | c.written
		key := number
		if g.Plan.Keys > 0 {
			key = uint64(c.random.IntN(g.Plan.Keys))
		}
		r.Pairs = append(r.Pairs, Pair{g.key(key), g.value(number, g.Plan.Values.draw(c.random))})
		r.touched = append(r.touched, touch{key, number})
	}
	return r
}

func (g *Generator) drawKey(c *user) uint64 {
	if g.Plan.Keys > 0 {
		return uint64(c.random.IntN(g.Plan.Keys))
	}
	return c.recent[c.random.IntN(len(c.recent))]
}

func (g *Generator) key(number uint64) string { return fmt.Sprintf("%s%d", g.Prefix, number) }

// remember notes keys of the client's own that can be read from now on.
func (c *user) remember(r *Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range r.touched {
		if len(c.recent) < recentKeys {
			c.recent = append(c.recent, t.key)
		} else {
			c.recent[c.random.IntN(recentKeys)] = t.key
		}
	}
}

// numbered is the size from which on a value carries its number, and can be told from every other.
const numbered = 8

// value makes a value that does not compress: its number, and bytes that follow from it.
func (g *Generator) value(number uint64, size int) []byte {
	value := binary.LittleEndian.AppendUint64(make([]byte, 0, size+numbered), number)
	random := rand.NewPCG(g.seed, number)
	for len(value) < size {
		value = binary.LittleEndian.AppendUint64(value, random.Uint64())
	}
	return value[:size]
}

// look checks that what was read is what was written, as far as that can be said of one read, and
// notes which write it was.
func (g *Generator) look(r *Request) error {
	if len(r.Values) != len(r.Keys) {
		return fmt.Errorf("%d values for %d keys", len(r.Values), len(r.Keys))
	}
	for i, value := range r.Values {
		own := g.Plan.Keys == 0
		switch {
		case value == nil && own:
			return fmt.Errorf("%w: %s", ErrLost, r.Keys[i])
		case len(value) < numbered:
			continue
		}
		number := binary.LittleEndian.Uint64(value)
		if !bytes.Equal(value, g.value(number, len(value))) || own && number != r.touched[i].key {
			return fmt.Errorf("%w: under %s", ErrForged, r.Keys[i])
		}
		r.touched[i].value = number
	}
	return nil
}
