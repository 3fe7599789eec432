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
)

// Store is what the load needs of a client of the cluster. Both methods return only what was verified under the group public key, and try on
// until ctx ends.
type Store interface {
	Put(ctx context.Context, pairs []Pair) error
	// Get returns the values of the keys, nil where there is none.
	Get(ctx context.Context, keys []string) ([][]byte, error)
}

// Pair is a key and its value.
type Pair struct {
	Key   string
	Value []byte
}

// RequestPairs is the number of operations of one request of the load.
const RequestPairs = 32

const (
	readEvery  = 4       // every fourth request reads what its client wrote before
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

func (l *Ledger) Record(pairs []Pair) {
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
func (l *Load) PutInput(ctx context.Context, c Store, input []Pair) error {
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

func (l *Load) Put(ctx context.Context, c Store, pairs []Pair) error {
	if err := c.Put(ctx, pairs); err != nil {
		return err
	}
	l.Ledger.Record(pairs)
	l.Meter.Acknowledged(len(pairs))
	return nil
}

// Work writes and reads until ctx ends. It is an error when a client does not read what it has written.
func (l *Load) Work(ctx context.Context, name string, c Store) error {
	var last []string
	for request := 0; ctx.Err() == nil; request++ {
		var err error
		if request%readEvery == readEvery-1 {
			err = l.Check(ctx, c, last)
		} else {
			pairs := newPairs(name, request)
			last = keysOf(pairs)
			err = l.Put(ctx, c, pairs)
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("client %s: %w", name, err)
		}
	}
	return nil
}

var errStaleRead = errors.New("an acknowledged write was not read back")

// Check reads keys that this client has written.
func (l *Load) Check(ctx context.Context, c Store, keys []string) error {
	values, err := c.Get(ctx, keys)
	if err != nil {
		return err
	}
	for i, key := range keys {
		if !l.Ledger.Holds(key, values[i]) {
			return fmt.Errorf("%w: %s", errStaleRead, key)
		}
	}
	l.Meter.Acknowledged(len(keys))
	return nil
}

// ReadBack reads every acknowledged write and returns how many are lost. Progress is told the keys read so far.
func (l *Load) ReadBack(ctx context.Context, clients []Store, progress func(read int)) (lost int, err error) {
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

// newPairs are the writes of one request: new keys, with values of 64 bytes.
func newPairs(client string, request int) []Pair {
	pairs := make([]Pair, RequestPairs)
	for i := range pairs {
		key := fmt.Sprintf("load/%s/%06d/%02d", client, request, i)
		first, second := sha256.Sum256([]byte(key)), sha256.Sum256([]byte(key+"+"))
		pairs[i] = Pair{key, append(first[:], second[:]...)}
	}
	return pairs
}

func keysOf(pairs []Pair) []string {
	keys := make([]string, len(pairs))
	for i, p := range pairs {
		keys[i] = p.Key
	}
	return keys
}
