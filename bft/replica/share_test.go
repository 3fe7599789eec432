package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
)

// checkShare has peers, some of which make many calls at once, ask for a minute, and says whether
// the replica served more than a quarter of the time, more than one call at a time, or one peer
// more than another.
func checkShare(t *testing.T) error {
	const work, while = 10 * time.Millisecond, time.Minute
	s := newShare()
	served := make([]atomic.Int64, 5)
	var now, most atomic.Int64
	ctx, cancel := context.WithTimeout(t.Context(), while)
	defer cancel()
	var callers sync.WaitGroup
	for peer := 1; peer <= 4; peer++ {
		calls := 1
		if peer == 4 {
			calls = 8 // more than wait
		}
		for range calls {
			callers.Go(func() {
				for ctx.Err() == nil {
					_, err := s.serve(ctx, &transport.Sender{ID: bft.ReplicaID(peer)}, func() ([]byte, error) {
						most.Store(max(most.Load(), now.Add(1)))
						<-time.After(work)
						now.Add(-1)
						served[peer].Add(1)
						return nil, nil
					})
					if errors.Is(err, errBusy) {
						<-time.After(time.Millisecond)
					}
				}
			})
		}
	}
	callers.Wait()
	total := int64(0)
	for peer := range served {
		total += served[peer].Load()
	}
	switch busy := time.Duration(total) * work; {
	case busy > while/4+work:
		return fmt.Errorf("it served %s of %s", busy, while)
	case busy < while/5:
		return fmt.Errorf("it served no more than %s of %s", busy, while)
	case most.Load() > 1:
		return fmt.Errorf("it served %d calls at once", most.Load())
	case served[4].Load() > served[1].Load()+2:
		return fmt.Errorf("it served %d calls of the one that asks much, and %d of another", served[4].Load(), served[1].Load())
	}
	return nil
}

func TestServingOthersTakesItsShareAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { require.NoError(t, checkShare(t)) })
}

// A block that nobody has is asked for once at a time, and less and less often; so many blocks at a
// time.
func TestFetchesAreNoFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { require.NoError(t, checkFetches()) })
}

func checkFetches() error {
	var q fetches
	asked := 0
	began := time.Now()
	for time.Since(began) < time.Minute { // the core asks again every 10 ms, impatient as it is
		if q.begin(bft.Digest{1}, time.Now()) {
			asked++
			if q.begin(bft.Digest{1}, time.Now()) {
				return errors.New("a block is asked for twice at a time")
			}
			q.end(bft.Digest{1}, false, time.Now())
		}
		<-time.After(10 * time.Millisecond)
	}
	if asked < 10 || asked > 60 {
		return fmt.Errorf("a block was asked for %d times in a minute", asked)
	}
	running := 0
	for i := range 100 {
		if q.begin(bft.Digest{2, byte(i)}, time.Now()) {
			running++
		}
	}
	if running != maxFetches {
		return fmt.Errorf("%d blocks are asked for at once", running)
	}
	q.end(bft.Digest{2, 0}, true, time.Now())
	if !q.begin(bft.Digest{2, 0}, time.Now()) {
		return errors.New("a block that was found, and is missing again, has to wait")
	}
	for i := range 10 * rememberedGap {
		q.end(bft.Digest{2, 0}, false, time.Now())
		if !q.begin(bft.Digest{2, 0}, time.Now().Add(time.Hour)) {
			return errors.New("a block is never asked for again")
		}
		q.running-- // make room
		q.begin(bft.Digest{3, byte(i), byte(i >> 8)}, time.Now())
		q.end(bft.Digest{3, byte(i), byte(i >> 8)}, false, time.Now())
		q.running++
	}
	if len(q.blocks) > rememberedGap+maxFetches {
		return fmt.Errorf("%d blocks are remembered", len(q.blocks))
	}
	return nil
}
