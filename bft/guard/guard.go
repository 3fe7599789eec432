package guard

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/reseal-bft/reseal/bft"
)

// ErrContradiction is what a refusal wraps: the vote must not be signed, now or later.
var ErrContradiction = errors.New("contradicts what was signed")

// maxNotarize bounds the different blocks for which a replica may vote in one view.
const maxNotarize = 4

// Guard is the table for one epoch's key. It is safe for concurrent use.
type Guard struct {
	mu    sync.Mutex
	epoch bft.Epoch // of the first vote
	bound bool      // epoch is known
	floor bft.View
	rows  map[bft.View]*row
}

// row is what was signed in one view.
type row struct {
	firstSigned   bool
	firstNullify  bool
	firstBlock    bft.Digest
	notarized     []bft.Digest
	fallback      bool // a notarize or nullify vote that was not the first
	nullified     bool
	finalized     bool
	finalizeBlock bft.Digest
}

// New returns an empty guard that refuses views below the floor.
func New(floor bft.View) *Guard {
	return &Guard{floor: floor, rows: make(map[bft.View]*row)}
}

// Restore records the votes of an earlier run. It fails when they contradict each other: then the
// disk cannot be trusted.
func (g *Guard) Restore(votes []bft.Vote) error {
	for _, v := range votes {
		if v.View < g.floor {
			continue
		}
		if err := g.Check(v); err != nil {
			return fmt.Errorf("stored votes: %w", err)
		}
	}
	return nil
}

// Check records the vote and returns nil when it may be signed. A refusal wraps [ErrContradiction].
func (g *Guard) Check(v bft.Vote) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.bound && v.Epoch != g.epoch {
		return g.refuse(v, "it is of another epoch")
	}
	if v.View < g.floor {
		return g.refuse(v, fmt.Sprintf("it is below the floor, view %d", g.floor))
	}
	r := g.rows[v.View]
	if r == nil {
		r = new(row)
	}
	if reason := r.admit(v); reason != "" {
		return g.refuse(v, reason)
	}
	g.rows[v.View] = r
	g.epoch, g.bound = v.Epoch, true
	return nil
}

// Prune raises the floor and forgets the views below it.
func (g *Guard) Prune(below bft.View) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if below <= g.floor {
		return
	}
	g.floor = below
	for v := range g.rows {
		if v < below {
			delete(g.rows, v)
		}
	}
}

func (g *Guard) refuse(v bft.Vote, reason string) error {
	return fmt.Errorf("%s vote in view %d of epoch %d refused, %s: %w", v.Kind, v.View, v.Epoch, reason, ErrContradiction)
}

// admit enters a vote into the row, or says why not; then the row is as it was.
func (r *row) admit(v bft.Vote) string {
	switch v.Kind {
	case bft.Finalize:
		return r.admitFinalize(v)
	case bft.Nullify:
		if !v.Block.IsZero() {
			return "it names a block"
		}
	case bft.Notarize:
		if len(r.notarized) >= maxNotarize && !slices.Contains(r.notarized, v.Block) {
			return "too many blocks were voted for in the view"
		}
	default:
		return "its kind is unknown"
	}
	nullify := v.Kind == bft.Nullify
	switch {
	case r.finalized && !r.repeats(v):
		return "a finalize vote was signed in the view"
	case v.First && r.firstSigned && (r.firstNullify != nullify || r.firstBlock != v.Block):
		return "another first vote was signed in the view"
	case v.First:
		r.firstSigned, r.firstNullify, r.firstBlock = true, nullify, v.Block
	default:
		r.fallback = true
	}
	if nullify {
		r.nullified = true
	} else if !slices.Contains(r.notarized, v.Block) {
		r.notarized = append(r.notarized, v.Block)
	}
	return ""
}

// repeats reports whether the vote was signed before.
func (r *row) repeats(v bft.Vote) bool {
	return v.Kind == bft.Notarize && v.First && r.firstSigned && !r.firstNullify && r.firstBlock == v.Block
}

// admitFinalize is admit for finalize votes: a view without fallback or nullify votes has at most
// one vote, the first one for a block.
func (r *row) admitFinalize(v bft.Vote) string {
	switch {
	case r.finalized && r.finalizeBlock != v.Block:
		return "another finalize vote was signed in the view"
	case v.First:
		return "it is no first vote"
	case r.fallback || r.nullified:
		return "it needs a view without fallback or nullify votes"
	case r.firstSigned && r.firstBlock != v.Block:
		return "another notarize vote was signed in the view"
	}
	r.finalized, r.finalizeBlock = true, v.Block
	return ""
}
