package client

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
)

// Read reads from the application, linearizably: the answer is of a state that has every operation
// whose result anybody was given before the call, and all that anybody has read. Nothing is ordered
// for it: a quorum is asked how far the cluster has proven its state, and then one replica for the
// answer. Calls that come while others wait share that question. Check verifies the answer against
// the reply's AppRoot in the way of the application; it may be nil. It tries on until ctx ends.
func (c *Client) Read(ctx context.Context, query []byte, check func(*request.ReadReply) error) (*request.ReadReply, error) {
	height, err := c.heights.await(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	var reply *request.ReadReply
	err = c.ask(ctx, methodRead, readCall(height, query), func(answer []byte) error {
		r, err := c.parseRead(answer, check)
		if err != nil {
			return err
		}
		if r.Header.StateHeight < height {
			return fmt.Errorf("its state is of height %d, and %d was asked for", r.Header.StateHeight, height)
		}
		reply = r
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	c.saw(reply.Header.StateHeight)
	return reply, nil
}

// Query reads from one replica. The reply is of a certified state that is at most maxAge old by the
// clocks of client and replicas (0: of any age), and no older than what this client has written or
// read before. Check verifies the answer against the reply's AppRoot in the way of the application;
// it may be nil. Where a reply does not satisfy, another replica is asked, until ctx ends.
func (c *Client) Query(ctx context.Context, query []byte, maxAge time.Duration, check func(*request.ReadReply) error) (*request.ReadReply, error) {
	back, times := &WentBackError{}, 0
	var reply *request.ReadReply
	err := c.ask(ctx, methodRead, readCall(0, query), func(answer []byte) error {
		r, err := c.parseRead(answer, nil)
		if err != nil {
			return err
		}
		if seen := c.Seen(); r.Header.StateHeight < seen {
			back.Height, back.Seen = max(back.Height, r.Header.StateHeight), seen
			if times++; times >= 2*len(c.conns) {
				return enough{back}
			}
			return fmt.Errorf("its state is of height %d, and this client has seen %d", r.Header.StateHeight, seen)
		}
		if age := time.Since(r.Time()); maxAge > 0 && age > maxAge {
			return fmt.Errorf("its state is %s old", age.Round(time.Millisecond))
		}
		if check != nil {
			if err := check(r); err != nil {
				return err
			}
		}
		reply = r
		return nil
	})
	if err != nil && back.Seen > 0 {
		return nil, fmt.Errorf("query: %w (%w)", back, err)
	}
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	c.saw(reply.Header.StateHeight)
	return reply, nil
}

// readCall asks for an answer from a state of at least a height.
func readCall(height bft.Height, query []byte) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(query)), uint64(height)), query...)
}

// parseRead parses an answer and verifies it.
func (c *Client) parseRead(answer []byte, check func(*request.ReadReply) error) (*request.ReadReply, error) {
	r, err := request.ParseReadReply(answer)
	if err != nil {
		return nil, err
	}
	if err := r.Verify(c.cfg.Cluster, c.cfg.GroupKey); err != nil {
		return nil, err
	}
	if check != nil {
		err = check(r)
	}
	return r, err
}

// heights asks a quorum for the height that the cluster has proven, once for all reads that wait:
// those that come while it is asked need a question that begins after them. Safe for concurrent
// use.
type heights struct {
	mu      sync.Mutex
	running *question
	next    *question // begins when the running one has ended
}

// question is one time that a quorum is asked.
type question struct {
	done    chan struct{}
	height  bft.Height
	err     error
	waiting int
	ctx     context.Context
	give    context.CancelFunc // nobody waits for it any more
}

// await returns a height that was asked for after the call began.
func (h *heights) await(ctx context.Context, c *Client) (bft.Height, error) {
	q := h.join(c)
	defer h.leave(q)
	select {
	case <-q.done:
		return q.height, q.err
	case <-ctx.Done():
		return 0, fmt.Errorf("no quorum proved its state in time: %w", ctx.Err())
	}
}

func (h *heights) join(c *Client) *question {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.next == nil {
		h.next = &question{done: make(chan struct{})}
		h.next.ctx, h.next.give = context.WithCancel(context.Background())
	}
	q := h.next
	q.waiting++
	if h.running == nil {
		h.begin(c)
	}
	return q
}

// begin asks the next question.
func (h *heights) begin(c *Client) {
	q := h.next
	h.running, h.next = q, nil
	go func() {
		q.height, q.err = c.askHeight(q.ctx)
		close(q.done)
		q.give()
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.running = nil; h.next != nil {
			h.begin(c)
		}
	}()
}

func (h *heights) leave(q *question) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if q.waiting--; q.waiting > 0 {
		return
	}
	q.give()
	if h.next == q { // it would ask for nobody
		h.next = nil
	}
}

// claim is what one replica says that it can prove.
type claim struct {
	replica int // index
	anchor  *request.Anchor
}

func (c claim) height() bft.Height { return c.anchor.Header.StateHeight }

// askHeight asks all replicas until a quorum has answered, and returns the highest height that is
// proven. A replica whose claim does not verify has not answered.
func (c *Client) askHeight(ctx context.Context) (bft.Height, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	seen := c.Seen() // what is shown to this client meanwhile need not be known to those that have answered
	if c.cfg.Size.N() != len(c.conns) {
		return 0, fmt.Errorf("linearizable reads need Config.Size and all of its replicas: %d are known, and f=%d, c=%d make %d", len(c.conns), c.cfg.Size.F, c.cfg.Size.C, c.cfg.Size.N())
	}
	answers := make(chan claim, len(c.conns))
	for i := range c.conns {
		go c.claimOf(ctx, i, answers)
	}
	var claims []claim
	var proven bft.Height
	for {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case answer := <-answers:
			claims = append(claims, answer)
		}
		for len(claims) >= c.cfg.Size.Quorum() {
			highest := slices.MaxFunc(claims, func(a, b claim) int { return cmp.Compare(a.height(), b.height()) })
			if highest.height() > proven {
				if err := highest.anchor.Verify(c.cfg.Cluster, c.cfg.GroupKey); err != nil {
					c.cfg.Log.Debug("a replica claims a state that it does not prove", "replica", c.cfg.Peers[highest.replica].ID, "error", err)
					claims = slices.DeleteFunc(claims, func(a claim) bool { return a.replica == highest.replica })
					continue
				}
				proven = highest.height()
			}
			if proven < seen {
				return 0, &WentBackError{proven, seen}
			}
			c.saw(proven)
			return proven, nil
		}
	}
}

// vouchedWithin is for how long a replica that proved to have its identity key is taken for who has
// it: how far the state is proven is what a quorum of replicas says, and no certificate says that it
// is the newest.
const vouchedWithin = time.Minute

// claimOf asks one replica, again and again until it answers.
func (c *Client) claimOf(ctx context.Context, replica int, answers chan<- claim) {
	for ctx.Err() == nil {
		data, err := c.conns[replica].CallVouched(ctx, vouchedWithin, methodHeight, nil)
		if err == nil {
			var anchor *request.Anchor
			if anchor, err = request.ParseAnchor(data); err == nil {
				answers <- claim{replica, anchor} // there is room for one of each
				return
			}
		}
		if !errors.Is(err, context.Canceled) {
			c.cfg.Log.Debug("a replica proves no height", "replica", c.cfg.Peers[replica].ID, "error", err)
		}
		pause := time.NewTimer(c.patience())
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}
