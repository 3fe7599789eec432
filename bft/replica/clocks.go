package replica

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
)

// methodClock tells a peer this machine's wall clock, in milliseconds since 1970.
const methodClock = "reseal/clock"

// How often a peer is asked for its clock, and tried while it does not answer; how long an answer
// counts; and the latest time that is one.
const (
	clockEvery = time.Second
	clockAgain = 100 * time.Millisecond
	clockHolds = 10 * time.Second
	latestTime = 1 << 48 // after the year 9999
)

// clocks are those of the others, as they say. Safe for concurrent use.
type clocks struct {
	mu sync.Mutex
	of map[bft.ReplicaID]reading
}

// reading is what a peer's clock showed at a moment of this machine's monotonic clock.
type reading struct {
	wall int64
	at   time.Time
}

func (c *clocks) note(peer bft.ReplicaID, r reading) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = make(map[bft.ReplicaID]reading)
	}
	c.of[peer] = r
}

// agreed is a time that f + c + 1 of the others show to be past, and that the clock of a correct one
// shows or has shown; 0 while not even f + 1 of them have answered. With fewer than f + c + 1 all
// that answered show it. So neither f liars nor c clocks that are behind hold it back, and f liars
// do not bring it ahead of all correct clocks.
func (c *clocks) agreed(size bft.Size, now time.Time) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var shown []int64
	for _, r := range c.of {
		if since := now.Sub(r.at); since < clockHolds {
			shown = append(shown, r.wall+since.Milliseconds())
		}
	}
	if len(shown) <= size.F {
		return 0
	}
	slices.Sort(shown)
	return shown[min(size.F+size.C, len(shown)-1)]
}

// date is the time of a block of this replica: its wall clock's, and not after what the others'
// clocks show. A correct replica whose clock is ahead thereby makes blocks that the others vote for:
// its turns are not lost, and while its vote is needed for every quorum, that for its own block does
// not stand against theirs until their clocks show that time.
func (r *Replica) date(size bft.Size) int64 {
	if size.N() == 1 {
		return r.now()
	}
	return min(r.now(), r.clocks.agreed(size, time.Now()))
}

// watchClock asks a peer for its clock, again and again, until the context ends.
func (r *Replica) watchClock(ctx context.Context, peer bft.ReplicaID) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		pause := clockAgain
		if slices.Contains(r.cfg.Network.Connected(), peer) && r.askClock(ctx, peer) {
			pause = clockEvery
		}
		timer.Reset(pause)
	}
}

// askClock asks a peer for its clock, and reports whether it told.
func (r *Replica) askClock(ctx context.Context, peer bft.ReplicaID) bool {
	ctx, cancel := context.WithTimeout(ctx, clockEvery)
	defer cancel()
	answer, err := r.cfg.Network.Call(ctx, peer, methodClock, nil)
	if err != nil || len(answer) != 8 {
		return false
	}
	wall := binary.BigEndian.Uint64(answer)
	if wall > latestTime {
		return false
	}
	r.clocks.note(peer, reading{int64(wall), time.Now()})
	return true
}

func (r *Replica) serveClock(_ context.Context, _ *transport.Sender, data []byte) ([]byte, error) {
	if len(data) > 0 {
		return nil, errMalformedCall
	}
	return binary.BigEndian.AppendUint64(nil, uint64(max(0, r.now()))), nil
}
