package client

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/transport"
)

// Methods of the replicas.
const (
	methodSubmit = "reseal/submit"
	methodHeight = "reseal/height"
	methodRead   = "reseal/read"
	methodInfo   = "reseal/info"
)

// Config is what a client is made of.
type Config struct {
	Cluster bft.ClusterID
	// Peers are the replicas to ask, with the identities that are pinned for them.
	Peers []transport.Peer
	// Size is the cluster's; only [Client.Read] needs it.
	Size bft.Size
	// GroupKey verifies certificates: a [Verifier], which clients of one process should share.
	GroupKey request.GroupKey
	// Key signs the requests.
	Key ed25519.PrivateKey
	// Patience is how long one replica is waited for before the next one is asked too; 0 stands for
	// one second. Where requests usually take long, it is longer, up to eight times: a cluster
	// under load is not helped by being asked more.
	Patience time.Duration
	// Log may be nil.
	Log *slog.Logger
	// Seen is what [Client.Seen] told an earlier client of the same cluster, 0 if there was none:
	// proven answers that fall behind it are refused with a [WentBackError].
	Seen bft.Height
}

// WentBackError says that what the cluster proves is older than what it proved to this client
// before: not one slow replica, but all that answered. The cluster, or that part of it which can be
// reached, was put back to an earlier state, and what was acknowledged since is lost. Find out how
// before you go on; to accept it, begin anew with Config.Seen 0.
type WentBackError struct {
	// Height is that of the newest state that a replica proves now, and Seen the one that was
	// proven before.
	Height, Seen bft.Height
}

func (e *WentBackError) Error() string {
	return fmt.Sprintf("the cluster has gone back: a state of height %d was proven to this client before, and now it proves none above %d; it was put back to an "+
		"earlier time, or the replicas that answer were", e.Seen, e.Height)
}

// inFlight bounds the requests that a client has under way, in bytes: enough to fill the blocks of
// several views. A replica keeps so much for one client when others need little; more would only
// wait there.
const inFlight = 8 << 20

// Client talks to a cluster. Safe for concurrent use.
type Client struct {
	cfg       Config
	conns     []*transport.Client // like cfg.Peers
	slots     chan *slot          // those that are free
	preferred atomic.Uint32       // index of the replica to ask first
	seen      atomic.Uint64       // height of the newest state that was written or read
	heard     []atomic.Int64      // when each replica gave a proven answer last, since began; 0: never
	began     time.Time
	bound     atomic.Pointer[anchored]
	room      *semaphore.Weighted // bytes of requests that may be under way
	heights   heights
	usual     atomic.Int64 // what requests took lately, a moving average in nanoseconds
}

// slot is one slot of the session: its requests come one after the other. Last is the sequence
// number of the last one, 0 if there was none.
type slot struct{ index, last uint64 }

// anchored is a height that was proven to be final a moment ago: requests are bound to it.
type anchored struct {
	height bft.Height
	at     time.Time
}

// anchorAge is how old the proof of a height may be that a request is bound to. Sessions last
// longer, however crowded they are.
const anchorAge = 10 * time.Second

// New makes a client. It connects when it is used.
func New(cfg Config) (*Client, error) {
	if len(cfg.Peers) == 0 || cfg.GroupKey == nil || len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, errors.New("a client needs replicas to ask, the group public key, and a key of its own")
	}
	if cfg.Patience == 0 {
		cfg.Patience = time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Client{
		cfg: cfg, slots: make(chan *slot, request.Window), heard: make([]atomic.Int64, len(cfg.Peers)), began: time.Now(),
		room: semaphore.NewWeighted(inFlight),
	}
	for i := range uint64(request.Window) {
		c.slots <- &slot{index: i}
	}
	// Keys are random: so clients spread over the replicas.
	c.seen.Store(uint64(cfg.Seen))
	c.preferred.Store(binary.BigEndian.Uint32(c.PublicKey()) % uint32(len(cfg.Peers)))
	for _, peer := range cfg.Peers {
		conn, err := transport.Dial(cfg.Cluster, peer)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("replica %d: %w", peer.ID, err), c.Close())
		}
		c.conns = append(c.conns, conn)
	}
	return c, nil
}

// PublicKey names the client.
func (c *Client) PublicKey() ed25519.PublicKey { return c.cfg.Key.Public().(ed25519.PublicKey) }

// Close ends the connections; calls under way fail.
func (c *Client) Close() error {
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// Submit has operations of the application executed, all in one request, and returns their results,
// which are proven. It tries on until ctx ends; after an error the operations may have been
// executed, or may still be, once; after [ErrOutcomeLost] they will not be any more.
func (c *Client) Submit(ctx context.Context, operations ...[]byte) ([][]byte, error) {
	return c.submit(ctx, request.Application, operations)
}

// SubmitSystem is [Client.Submit] for operations of the system; these prove by themselves that they
// are allowed.
func (c *Client) SubmitSystem(ctx context.Context, operations ...[]byte) ([][]byte, error) {
	return c.submit(ctx, request.System, operations)
}

func (c *Client) submit(ctx context.Context, space request.Space, operations [][]byte) ([][]byte, error) {
	var s *slot
	select {
	case s = <-c.slots:
	case <-ctx.Done():
		return nil, fmt.Errorf("submit: %d requests are outstanding: %w", request.Window, ctx.Err())
	}
	defer func() { c.slots <- s }()
	bound, err := c.anchor(ctx)
	if err != nil {
		return nil, fmt.Errorf("submit: learn a recent height: %w", err)
	}
	next := request.NextSequence(s.last, s.index, bound, time.Now())
	r, err := request.New(c.cfg.Cluster, c.cfg.Key, next, space, operations)
	if err != nil {
		return nil, err
	}
	s.last = next

	if err := c.room.Acquire(ctx, int64(len(r.Raw()))); err != nil {
		return nil, fmt.Errorf("submit: requests of %d bytes are outstanding: %w", inFlight, err)
	}
	defer c.room.Release(int64(len(r.Raw())))
	seen := c.Seen() // a request that is made now is executed above every state that is proven already
	var reply *request.Reply
	err = c.ask(ctx, methodSubmit, r.Raw(), func(answer []byte) error {
		parsed, err := request.ParseReply(answer)
		if err != nil {
			return err
		}
		if len(parsed.Results) != len(operations) {
			return fmt.Errorf("it gives %d results for %d operations", len(parsed.Results), len(operations))
		}
		if err := parsed.Verify(c.cfg.Cluster, c.cfg.GroupKey, r.Client, r.Sequence); err != nil {
			return err
		}
		reply = parsed
		return nil
	})
	if err != nil {
		c.bound.Store(nil) // it may have been bound to a height that is long past
		return nil, fmt.Errorf("submit: %w", err)
	}
	c.bindTo(reply.Header.StateHeight)
	if reply.Record.Height <= seen {
		return nil, fmt.Errorf("submit: the operations were executed at height %d, but %w", reply.Record.Height, &WentBackError{reply.Record.Height, seen})
	}
	c.saw(reply.Record.Height)
	return reply.Results, nil
}

// anchor returns a height that was proven lately to be final: by a reply, or else by what a replica
// proves now. States that are old by the clock, or behind what this client has seen, are taken only
// when no replica has a better one.
func (c *Client) anchor(ctx context.Context) (bft.Height, error) {
	if b := c.bound.Load(); b != nil && time.Since(b.at) < anchorAge {
		return b.height, nil
	}
	tries := 0
	var height bft.Height
	err := c.ask(ctx, methodHeight, nil, func(answer []byte) error {
		a, err := request.ParseAnchor(answer)
		if err != nil {
			return err
		}
		if err := a.Verify(c.cfg.Cluster, c.cfg.GroupKey); err != nil {
			return err
		}
		age := time.Since(time.UnixMilli(a.Header.Time))
		if tries++; tries <= len(c.conns) && (age > anchorAge || a.Header.StateHeight < c.Seen()) {
			return fmt.Errorf("its last state is of height %d, %s old", a.Header.StateHeight, age.Round(time.Millisecond))
		}
		height = a.Header.StateHeight
		return nil
	})
	if err != nil {
		return 0, err
	}
	return c.bindTo(height), nil
}

// bindTo notes a height that requests can be bound to from now on, and returns the one that they are.
func (c *Client) bindTo(height bft.Height) bft.Height {
	now := time.Now()
	for {
		b := c.bound.Load()
		if b != nil && b.height > height && now.Sub(b.at) < anchorAge {
			return b.height
		}
		if c.bound.CompareAndSwap(b, &anchored{height, now}) {
			return height
		}
	}
}

// Seen returns the height of the newest state that was proven to this client. Kept, and given to a
// later client, it shows whether the cluster was put back in between.
func (c *Client) Seen() bft.Height { return bft.Height(c.seen.Load()) }

// saw notes a height that later reads must not fall behind.
func (c *Client) saw(h bft.Height) {
	for {
		seen := c.seen.Load()
		if uint64(h) <= seen || c.seen.CompareAndSwap(seen, uint64(h)) {
			return
		}
	}
}
