package load

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reseal-bft/reseal/bft/client"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/bft/request"
)

// Client is a client of the replicated key-value store. It returns nothing that was not verified.
type Client struct {
	*client.Client
	// Ordered has reads made as operations in the order of all others. MaxAge has them answered by
	// one replica, of a state of at most that age. With neither they are linearizable without an
	// operation of their own.
	Ordered bool
	MaxAge  time.Duration
}

// ReadsAre says in words how the client reads.
func (s Client) ReadsAre() string {
	switch {
	case s.Ordered:
		return "operations in the order of all others"
	case s.MaxAge > 0:
		return fmt.Sprintf("of one replica, at most %v old", s.MaxAge)
	}
	return "linearizable, by a quorum's word"
}

var _ Store = Client{}

// Put sets keys, all in one request.
func (s Client) Put(ctx context.Context, pairs []Pair) error {
	operations := make([][]byte, len(pairs))
	for i, p := range pairs {
		var err error
		if operations[i], err = kv.Put([]byte(p.Key), p.Value); err != nil {
			return fmt.Errorf("%s: %w", p.Key, err)
		}
	}
	results, err := s.execute(ctx, operations)
	if err != nil {
		return err
	}
	for i, result := range results {
		if result.Status != kv.OK {
			return fmt.Errorf("%s: %v", pairs[i].Key, result.Status)
		}
	}
	return nil
}

// Get reads keys, in the way that the client has for it.
func (s Client) Get(ctx context.Context, keys []string) ([][]byte, error) {
	if !s.Ordered {
		return s.query(ctx, keys)
	}
	operations := make([][]byte, len(keys))
	for i, key := range keys {
		var err error
		if operations[i], err = kv.Get([]byte(key)); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	results, err := s.execute(ctx, operations)
	if err != nil {
		return nil, err
	}
	values := make([][]byte, len(keys))
	for i, result := range results {
		switch result.Status {
		case kv.OK:
			values[i] = append([]byte{}, result.Value...)
		case kv.NotFound:
		default:
			return nil, fmt.Errorf("%s: %v", keys[i], result.Status)
		}
	}
	return values, nil
}

func (s Client) execute(ctx context.Context, operations [][]byte) ([]kv.Result, error) {
	raw, err := s.Submit(ctx, operations...)
	if err != nil {
		return nil, err
	}
	results := make([]kv.Result, len(raw))
	for i := range raw {
		if results[i], err = kv.ParseResult(raw[i]); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// query reads keys outside the order of operations, each with a proof of its own.
func (s Client) query(ctx context.Context, keys []string) ([][]byte, error) {
	values := make([][]byte, len(keys))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxUnderWay)
	for i, key := range keys {
		group.Go(func() error {
			read := s.Read
			if s.MaxAge > 0 {
				read = func(ctx context.Context, query []byte, check func(*request.ReadReply) error) (*request.ReadReply, error) {
					return s.Query(ctx, query, s.MaxAge, check)
				}
			}
			_, err := read(ctx, []byte(key), func(r *request.ReadReply) error {
				value, found, err := kv.VerifyQuery(r.AppRoot, []byte(key), r.Answer, r.Proof)
				if err == nil && found {
					values[i] = append([]byte{}, value...)
				}
				return err
			})
			return err
		})
	}
	return values, group.Wait()
}

// Witness stands between the clients and the verification of certificates, and keeps account of it.
// Safe for concurrent use.
type Witness struct {
	request.GroupKey
	// Refused counts the replies that did not verify, Bytes is the size of the last certificate
	// that did.
	Refused, Bytes atomic.Int64
}

// Verify verifies a certificate.
func (w *Witness) Verify(message, signature []byte) error {
	err := w.GroupKey.Verify(message, signature)
	if err != nil {
		w.Refused.Add(1)
		return err
	}
	w.Bytes.Store(int64(len(signature)))
	return nil
}
