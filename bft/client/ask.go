package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/reseal-bft/reseal/bft/transport"
)

// ErrOutcomeLost says that a quorum of replicas has no outcome of a request to show: it was executed,
// or passed over, long ago, or its session has ended. Whether it was executed cannot be learned any
// more; it will not be from now on.
var ErrOutcomeLost = errors.New("whether the operations were executed is not known any more; they will not be from now on")

// answer is what became of asking one replica.
type answer struct {
	replica int // index
	data    []byte
	err     error
}

// enough is why accept wants no further answers.
type enough struct{ error }

// What a replica that is busy may ask of a client: to stay away for so long, at most, before
// another one is asked. The pause doubles with each refusal.
const (
	leastAway = 50 * time.Millisecond
	mostAway  = 10 * time.Second
)

// mostPatience bounds the doubling of patience, in multiples of what it begins with.
const mostPatience = 8

// ask calls a method of one replica after the other until accept takes an answer: the next one is
// asked when one fails, or is silent, while those before may still answer. Each time the wait
// doubles, so that a body travels seldom more than once; and a replica that answers others of this
// client's calls is not silent, only slow, for a while. One that is busy says when to come back.
// When all have failed, they are asked again after a pause. It ends with ctx, when accept has
// [enough], or with [ErrOutcomeLost] when a quorum has said so and nobody else has a better answer.
func (c *Client) ask(ctx context.Context, method string, query []byte, accept func([]byte) error) error {
	calls, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		answers  = make(chan answer, len(c.conns))
		asking   = make([]bool, len(c.conns))
		first    = int(c.preferred.Load())
		next     = 0                  // position behind first of the replica to ask next
		last     = -1                 // the replica that was asked last; -1 when it has answered
		busy     = 0                  // refusals
		gone     = make(map[int]bool) // that say that it is not to be had any more
		lost     error                // what the last of these said
		failure  = errors.New("none was asked")
		start    = time.Now()
		patience = c.patience()
		longest  = mostPatience * patience
		pause    = time.NewTimer(patience)
	)
	defer pause.Stop()
	askNext := func() {
		replica := (first + next) % len(c.conns)
		next++
		pause.Reset(patience)
		if asking[replica] {
			return
		}
		asking[replica], last = true, replica
		go func() {
			data, err := c.conns[replica].Call(calls, method, query)
			answers <- answer{replica, data, err}
		}()
	}
	for askNext(); ; {
		select {
		case a := <-answers:
			asking[a.replica] = false
			if last == a.replica {
				last = -1
			}
			if a.err == nil {
				a.err = accept(a.data)
			}
			if a.err == nil {
				c.preferred.Store(uint32(a.replica))
				c.heard[a.replica].Store(int64(time.Since(c.began)))
				c.took(time.Since(start))
				return nil
			}
			if stop, ok := a.err.(enough); ok {
				return stop.error
			}
			failure = fmt.Errorf("replica %d: %w", c.cfg.Peers[a.replica].ID, a.err)
			if errors.As(a.err, new(*transport.GoneError)) {
				gone[a.replica], lost = true, failure
			}
			if len(gone) >= c.quorum() && next >= len(c.conns) && !slices.Contains(asking, true) {
				return fmt.Errorf("%w (%w)", ErrOutcomeLost, lost)
			}
			c.cfg.Log.Debug("a replica did not help", "method", method, "error", failure)
			if refused := new(transport.BusyError); errors.As(a.err, &refused) {
				pause.Reset(away(refused.After, busy))
				busy++
			} else if next < len(c.conns) {
				askNext()
			}
		case <-pause.C:
			if len(gone) >= c.quorum() && next >= len(c.conns) { // the others had time to say better
				return fmt.Errorf("%w (%w)", ErrOutcomeLost, lost)
			}
			if wait := c.silence(last, patience, longest-time.Since(start)); wait > 0 {
				pause.Reset(wait)
			} else {
				patience = min(2*patience, longest)
				askNext()
			}
		case <-ctx.Done():
			return fmt.Errorf("no replica gave a proven answer in time (the last to fail: %w): %w", failure, ctx.Err())
		}
	}
}

// quorum is how many replicas are believed that say the same: of those there are in any case so many
// that are correct and up; without Config.Size all but as many as can be Byzantine.
func (c *Client) quorum() int {
	if n := len(c.conns); c.cfg.Size.N() != n {
		return n - (n-1)/3
	}
	return c.cfg.Size.Quorum()
}

// away is how long a client stays away that was refused so often before: at least what it is told,
// and longer with each refusal, with some chance in it, so that those who were refused together do
// not come back together.
func away(told time.Duration, refusals int) time.Duration {
	pause := min(max(told, leastAway<<min(refusals, 16)), mostAway)
	return pause + rand.N(pause/2)
}

// silence is how much longer a replica may be silent on one call that gave proven answers to others
// a moment ago; 0 when it gave none, or there is no time left.
func (c *Client) silence(replica int, patience, left time.Duration) time.Duration {
	if replica < 0 || c.heard[replica].Load() == 0 {
		return 0
	}
	return min(patience-(time.Since(c.began)-time.Duration(c.heard[replica].Load())), left)
}

// patience is how long a replica is waited for: several times what requests took lately, within bounds.
func (c *Client) patience() time.Duration {
	return min(max(c.cfg.Patience, 4*time.Duration(c.usual.Load())), mostPatience*c.cfg.Patience)
}

// took notes how long a request has taken. Concurrent notes may be lost, which does not matter to
// an average.
func (c *Client) took(d time.Duration) {
	usual := c.usual.Load()
	c.usual.Store(usual + (int64(d)-usual)/8)
}
