package demo

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

// store is what the load needs of a client of the cluster. Both methods return only what was verified under the group public key, and try on
// until ctx ends.
type store interface {
	Put(ctx context.Context, pairs []pair) error
	// Get returns the values of the keys, nil where there is none.
	Get(ctx context.Context, keys []string) ([][]byte, error)
}

const (
	batchPairs = 32      // operations of one request of the load
	readEvery  = 4       // every fourth request reads what its client wrote before
	chunkKeys  = 1000    // keys of one request when everything is read back
	chunkBytes = 1 << 20 // and bytes of its values; also of one request of input files
)

// ledger remembers every acknowledged write. Safe for concurrent use.
type ledger struct {
	mu     sync.Mutex
	writes map[string]written
}

type written struct {
	digest [sha256.Size]byte
	size   int
}

func newLedger() *ledger { return &ledger{writes: map[string]written{}} }

func (l *ledger) record(pairs []pair) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range pairs {
		l.writes[p.key] = written{sha256.Sum256(p.value), len(p.value)}
	}
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.writes)
}

// holds reports whether value is what was written under key.
func (l *ledger) holds(key string, value []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return value != nil && l.writes[key].digest == sha256.Sum256(value)
}

// chunks splits all keys such that the values of each chunk fit a reply.
func (l *ledger) chunks() [][]string {
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

// load is the clients' work: it writes new keys, reads them again, and keeps account.
type load struct {
	ledger *ledger
	meter  *meter
}

// putInput writes the input, a request at a time.
func (l *load) putInput(ctx context.Context, c store, input []pair) error {
	for len(input) > 0 {
		var size, n int
		for n < len(input) && n < chunkKeys && (n == 0 || size+len(input[n].value) <= chunkBytes) {
			size += len(input[n].value)
			n++
		}
		if err := l.put(ctx, c, input[:n]); err != nil {
			return err
		}
		input = input[n:]
	}
	return nil
}

func (l *load) put(ctx context.Context, c store, pairs []pair) error {
	if err := c.Put(ctx, pairs); err != nil {
		return err
	}
	l.ledger.record(pairs)
	l.meter.acknowledged(len(pairs))
	return nil
}

// work writes and reads until ctx ends. It is an error when a client does not read what it has written.
func (l *load) work(ctx context.Context, name string, c store) error {
	var last []string
	for request := 0; ctx.Err() == nil; request++ {
		var err error
		if request%readEvery == readEvery-1 {
			err = l.check(ctx, c, last)
		} else {
			pairs := newPairs(name, request)
			last = keysOf(pairs)
			err = l.put(ctx, c, pairs)
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("client %s: %w", name, err)
		}
	}
	return nil
}

var errStaleRead = errors.New("an acknowledged write was not read back")

// check reads keys that this client has written.
func (l *load) check(ctx context.Context, c store, keys []string) error {
	values, err := c.Get(ctx, keys)
	if err != nil {
		return err
	}
	for i, key := range keys {
		if !l.ledger.holds(key, values[i]) {
			return fmt.Errorf("%w: %s", errStaleRead, key)
		}
	}
	l.meter.acknowledged(len(keys))
	return nil
}

// readBack reads every acknowledged write and returns how many are lost. Progress is told the keys read so far.
func (l *load) readBack(ctx context.Context, clients []store, progress func(read int)) (lost int, err error) {
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
					if !l.ledger.holds(key, values[i]) {
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
		for _, keys := range l.ledger.chunks() {
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
func newPairs(client string, request int) []pair {
	pairs := make([]pair, batchPairs)
	for i := range pairs {
		key := fmt.Sprintf("load/%s/%06d/%02d", client, request, i)
		first, second := sha256.Sum256([]byte(key)), sha256.Sum256([]byte(key+"+"))
		pairs[i] = pair{key, append(first[:], second[:]...)}
	}
	return pairs
}

func keysOf(pairs []pair) []string {
	keys := make([]string, len(pairs))
	for i, p := range pairs {
		keys[i] = p.key
	}
	return keys
}
