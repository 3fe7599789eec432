package stage

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/reseal-bft/reseal/internal/load"
)

// RequestPairs is the number of operations of one request of the load.
const RequestPairs = 32

// plan is what every client does: it writes new keys, with values of 64 bytes, and with every
// fourth request reads what it has written.
var plan = load.Plan{Reads: 0.25, Values: load.Exactly(64), Envelope: load.Exactly(RequestPairs)}

const (
	chunkKeys  = 1000    // keys of one request when everything is read back
	chunkBytes = 1 << 20 // and bytes of its values; also of one request of input files
)

// Ledger remembers every acknowledged write. Safe for concurrent use.
type Ledger struct {
	mu     sync.Mutex
	writes map[string]written
}

type written struct {
	digest [sha256.Size]byte
	size   int
}

func NewLedger() *Ledger { return &Ledger{writes: map[string]written{}} }

func (l *Ledger) Record(pairs []load.Pair) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range pairs {
		l.writes[p.Key] = written{sha256.Sum256(p.Value), len(p.Value)}
	}
}

func (l *Ledger) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.writes)
}

// Holds reports whether value is what was written under key.
func (l *Ledger) Holds(key string, value []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return value != nil && l.writes[key].digest == sha256.Sum256(value)
}

// chunks splits all keys such that the values of each chunk fit a reply.
func (l *Ledger) chunks() [][]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var chunks [][]string
	var chunk []string
	var size int
	for _, key := range slices.Sorted(maps.Keys(l.writes)) {
		if w := l.writes[key]; len(chunk) == chunkKeys || len(chunk) > 0 && size+w.size > chunkBytes {
			chunks, chunk, size = append(chunks, chunk), nil, 0
		}
		chunk, size = append(chunk, key), size+l.writes[key].size
	}
	if len(chunk) > 0 {
		chunks = append(chunks, chunk)
	}
	return chunks
}

// Load is the clients' work: it writes new keys, reads them again, and keeps account.
type Load struct {
	Ledger *Ledger
	Meter  *Meter
}

// NewLoad returns a load without account yet.
func NewLoad() *Load { return &Load{Ledger: NewLedger(), Meter: NewMeter()} }

// PutInput writes the input, a request at a time.
func (l *Load) PutInput(ctx context.Context, c load.Store, input []load.Pair) error {
	for len(input) > 0 {
		var size, n int
		for n < len(input) && n < chunkKeys && (n == 0 || size+len(input[n].Value) <= chunkBytes) {
			size += len(input[n].Value)
			n++
		}
		if err := l.Put(ctx, c, input[:n]); err != nil {
			return err
		}
		input = input[n:]
	}
	return nil
}

func (l *Load) Put(ctx context.Context, c load.Store, pairs []load.Pair) error {
	if err := c.Put(ctx, pairs); err != nil {
		return err
	}
	l.Ledger.Record(pairs)
	l.Meter.Acknowledged(len(pairs))
	return nil
}

// Work has the clients write and read until ctx ends. It is an error when one gets no answer, or
// does not read what it has written.
func (l *Load) Work(ctx context.Context, clients []load.Store) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	g := load.Generator{
		Plan: plan, Stores: clients, Prefix: "load/",
		Watch: func(r *load.Request) {
			switch {
			case r.Err == nil:
				l.Ledger.Record(r.Pairs)
				l.Meter.Acknowledged(r.Operations())
			case ctx.Err() == nil:
				fail(fmt.Errorf("client %d: %w", r.Client+1, r.Err))
			}
		},
	}
	g.Plan.Clients = len(clients)
	g.Run(ctx)
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// ReadBack reads every acknowledged write and returns how many are lost. Progress is told the keys
// read so far.
func (l *Load) ReadBack(ctx context.Context, clients []load.Store, progress func(read int)) (lost int, err error) {
	var mu sync.Mutex
	var read int
	work := make(chan []string)
	group, ctx := errgroup.WithContext(ctx)
	for _, c := range clients {
		group.Go(func() error {
			for keys := range work {
				values, err := c.Get(ctx, keys)
				if err != nil {
					return err
				}
				mu.Lock()
				for i, key := range keys {
					if !l.Ledger.Holds(key, values[i]) {
						lost++
					}
				}
				read += len(keys)
				progress(read)
				mu.Unlock()
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(work)
		for _, keys := range l.Ledger.chunks() {
			select {
			case work <- keys:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	return lost, group.Wait()
}
