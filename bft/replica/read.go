package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/transport"
)

// Methods for clients that read. Neither leaves anything behind.
const (
	// MethodHeight answers with a request.Anchor that proves a state no older than any that a
	// client was shown before the call: of q replicas' answers the highest is no older than any
	// that the cluster has proven to anybody (docs/protocol.md, "Reads").
	MethodHeight = "reseal/height"
	// MethodRead takes a height, 8 bytes big-endian, and a query of the application. The answer is
	// a request.ReadReply of a state of at least that height.
	MethodRead = "reseal/read"
)

// readPatience is how long a read waits for a state that is not certified here yet. A replica of a
// cluster that goes on has it in a moment.
const readPatience = 2 * time.Second

// ErrBehind says that a state that was asked for is not certified here, and was not in time.
var ErrBehind = errors.New("this replica has not reached the state that was asked for: ask another")

// pledge takes note of the state that a block certifies which this replica votes to notarize: from
// then on the cluster may prove it to somebody, and this replica answers no question for the height
// before it can prove as much. It is called when block and vote are on disk, before the vote is
// signed.
func (e *epochRun) pledge(v bft.Vote) {
	if v.Kind != bft.Notarize {
		return
	}
	header, ok := e.headers.get(v.Block)
	if !ok {
		block, err := e.r.cfg.Store.Block(v.Block)
		if err != nil || block == nil {
			e.r.log.Error("a block that this replica has voted for is not on disk: it answers no linearizable reads in this epoch", "view", v.View, "error", err)
			e.pledged.Store(math.MaxUint64)
			return
		}
		header = block.Header
	}
	if state := uint64(header.StateHeight); state > e.pledged.Load() {
		e.pledged.Store(state) // one goroutine writes
	}
}

// restorePledge makes the pledge of the votes that the disk holds. What was certified up to the
// final block on disk, in this epoch and before, is not above it.
func (e *epochRun) restorePledge(restored *bft.Restored) {
	e.pledged.Store(uint64(restored.Final.Height))
	for _, v := range restored.Votes {
		if v.View > restored.FinalView {
			e.pledge(v)
		}
	}
}

// serveHeight answers when this replica can prove what it has pledged. Who casts no votes in this
// epoch, and may have forgotten some, is not heard.
func (r *Replica) serveHeight(ctx context.Context, _ *transport.Sender, data []byte) ([]byte, error) {
	run := r.run.Load()
	if run == nil || !run.config.Voter || len(data) > 0 {
		return nil, errors.New("this replica does not vote now: ask another")
	}
	c, err := r.awaitCertified(ctx, bft.Height(run.pledged.Load()))
	if err != nil {
		return nil, err
	}
	anchor := request.Anchor{Header: c.header, Certificate: c.certificate}
	return anchor.MarshalBinary()
}

// serveRead answers a query from the last certified state, once that is as high as the client wants it.
func (r *Replica) serveRead(ctx context.Context, _ *transport.Sender, data []byte) ([]byte, error) {
	if len(data) < 8 {
		return nil, errMalformedCall
	}
	c, err := r.awaitCertified(ctx, bft.Height(binary.BigEndian.Uint64(data)))
	if err != nil {
		return nil, err
	}
	leave, err := transport.Turn(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	answer, proof, err := c.app.Query(data[8:])
	if err != nil {
		return nil, err
	}
	reply := request.ReadReply{
		Answer: answer, Proof: proof,
		AppRoot: c.appRoot, SessionsRoot: bft.Digest(c.sessions.Root()), SystemRoot: c.systemRoot,
		Header: c.header, Certificate: c.certificate,
	}
	return reply.MarshalBinary()
}

// awaitCertified returns the last certified state when it is at a height, or waits for it.
func (r *Replica) awaitCertified(ctx context.Context, height bft.Height) (*certifiedState, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, readPatience, ErrBehind)
	defer cancel()
	for {
		c, news := r.ledger.proven()
		if c != nil && c.height >= height {
			return c, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			if c == nil {
				return nil, fmt.Errorf("no state is certified yet: %w", context.Cause(ctx))
			}
			return nil, fmt.Errorf("a state of height %d is wanted, and %d is certified: %w", height, c.height, context.Cause(ctx))
		}
	}
}
