package client

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// answer is what became of asking one replica.
type answer struct {
	replica int // index
	data    []byte
	err     error
}

// enough is why accept wants no further answers.
type enough struct{ error }

// ask calls a method of one replica after the other until accept takes an answer: the next one is asked when one is silent for the
// client's patience or fails, while those before may still answer. When all have failed, they are asked again after a pause. It ends with ctx, or when accept has [enough].
func (c *Client) ask(ctx context.Context, method string, query []byte, accept func([]byte) error) error {
	calls, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		answers  = make(chan answer, len(c.conns))
		asking   = make([]bool, len(c.conns))
		first    = int(c.preferred.Load())
		next     = 0 // position behind first of the replica to ask next
		failure  = errors.New("none was asked")
		start    = time.Now()
		patience = c.patience()
		pause    = time.NewTimer(patience)
	)
	defer pause.Stop()
	askNext := func() {
		replica := (first + next) % len(c.conns)
		next++
		if asking[replica] {
			return
		}
		asking[replica] = true
		go func() {
			data, err := c.conns[replica].Call(calls, method, query)
			answers <- answer{replica, data, err}
		}()
	}
	for askNext(); ; {
		select {
		case a := <-answers:
			asking[a.replica] = false
			if a.err == nil {
				a.err = accept(a.data)
			}
			if a.err == nil {
				c.preferred.Store(uint32(a.replica))
				c.took(time.Since(start))
				return nil
			}
			if stop, ok := a.err.(enough); ok {
				return stop.error
			}
			failure = fmt.Errorf("replica %d: %w", c.cfg.Peers[a.replica].ID, a.err)
			c.cfg.Log.Debug("a replica did not help", "method", method, "error", failure)
			if next < len(c.conns) {
				askNext()
				pause.Reset(patience)
			}
		case <-pause.C:
			askNext()
			pause.Reset(patience)
		case <-ctx.Done():
			return fmt.Errorf("no replica gave a proven answer in time (the last to fail: %w): %w", failure, ctx.Err())
		}
	}
}

// patience is how long a replica is waited for: several times what requests took lately, within bounds.
func (c *Client) patience() time.Duration {
	return min(max(c.cfg.Patience, 4*time.Duration(c.usual.Load())), 8*c.cfg.Patience)
}

// took notes how long a request has taken. Concurrent notes may be lost, which does not matter to an average.
func (c *Client) took(d time.Duration) {
	usual := c.usual.Load()
	c.usual.Store(usual + (int64(d)-usual)/8)
}
