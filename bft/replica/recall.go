package replica

import (
	"bytes"
	"context"
	"crypto/subtle"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
)

// methodRecall tells a replica the last vote of it that the one asked has had, on its own channel;
// nothing when there was none. A replica asks before its first vote after a start: what it has
// forgotten, others have not.
const methodRecall = "reseal/recall"

// recallTimeout is how long those that are connected are waited for until enough have answered; the
// rest then get as long again as those took, recallGrace at least, so that a silent one delays no
// start by much. recallPause is the least time until all are asked again when too few have
// answered.
const (
	recallTimeout = 2 * time.Second
	recallGrace   = 100 * time.Millisecond
	recallPause   = 200 * time.Millisecond
)

// position is a view of an epoch.
type position struct {
	epoch bft.Epoch
	view  bft.View
}

func (p position) after(q position) bool {
	return p.epoch > q.epoch || p.epoch == q.epoch && p.view > q.view
}

func positionOf(v bft.Vote) position { return position{v.Epoch, v.View} }

// recall remembers the last vote of each peer, in a view the one that is cast last. One that lies
// about its own votes harms only itself.
type recall struct {
	mu    sync.Mutex
	peers map[bft.ReplicaID]bft.Vote
}

func (c *recall) note(from bft.ReplicaID, v bft.Vote) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peers == nil {
		c.peers = make(map[bft.ReplicaID]bft.Vote)
	}
	last := c.peers[from]
	if at := positionOf(v); at.after(positionOf(last)) || at == positionOf(last) && v.Kind > last.Kind {
		v.Partial = bytes.Clone(v.Partial)
		c.peers[from] = v
	}
}

func (c *recall) of(peer bft.ReplicaID) (bft.Vote, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.peers[peer]
	return v, ok
}

func (r *Replica) serveRecall(_ context.Context, from *transport.Sender, data []byte) ([]byte, error) {
	if len(data) > 0 || from == nil {
		return nil, errMalformedCall
	}
	if v, ok := r.recall.of(from.ID); ok {
		return bft.MarshalMessage(v), nil
	}
	return nil, nil
}

// parseRecalled parses an answer; the zero vote stands for none.
func parseRecalled(data []byte) (bft.Vote, error) {
	if len(data) == 0 {
		return bft.Vote{}, nil
	}
	m, err := bft.ParseMessage(data)
	v, ok := m.(bft.Vote)
	if err != nil || !ok {
		return bft.Vote{}, errMalformedCall
	}
	return v, nil
}

// recalled is what the others know of a replica's votes.
type recalled struct {
	forgotten string // why it has forgotten some; empty if it has not
	enough    bool   // a quorum, with itself, has answered
}

// askWhatTheySaw asks all others for this replica's votes. It has forgotten some when one of them
// has a vote that it has signed and its store does not know, or when f + 1 say so whose word cannot
// be checked. Views up to the final one do not count. Late finalize votes may still go to one of
// them, and what this replica said there before is then covered by its store alone
// (docs/protocol.md, Forgotten votes).
//
// It waits for a quorum, with itself, of those that are connected, and a little for the others.
// Without a mark, which may have been removed, it waits for those that are not, too, until f + 1
// correct ones, and a quorum, have answered.
func (r *Replica) askWhatTheySaw(ctx context.Context, m *Membership, signer bft.Signer, restored *bft.Restored) recalled {
	known := position{m.Epoch, restored.FinalView}
	for _, v := range restored.Votes {
		known.view = max(known.view, v.View)
	}
	unsure := r.found.raw == nil && r.ledger.latest.Load().height > 0
	enough := m.Size.Quorum() - 1
	if unsure {
		enough = max(enough, 2*m.Size.F+1)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, recallTimeout)
	defer cancel()
	peers := r.askOrder(nil)
	answers := make(chan *bft.Vote, len(peers))
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	for _, peer := range peers {
		asking.Go(func() { answers <- r.askWhatItSaw(ctx, peer, unsure) })
	}
	heard, more := 0, 0
	for range peers {
		v := <-answers
		if v == nil {
			continue
		}
		heard++
		proven := false
		if positionOf(*v).after(known) {
			more++
		}
		if v.Epoch == m.Epoch && v.View > restored.FinalView && !slices.ContainsFunc(restored.Votes, func(own bft.Vote) bool { return own.Statement == v.Statement }) {
			proven = r.isMine(signer, v) && !broken("recall-unproven")
		}
		if proven || more > m.Size.F || more > 0 && broken("recall-of-one") {
			return recalled{forgotten: fmt.Sprintf("another replica has had a vote of this one that its store does not know, a %v vote in view %d: the store knows none above view %d", v.Kind, v.View, known.view)}
		}
		if heard == enough {
			time.AfterFunc(max(recallGrace, time.Since(began)), cancel)
		}
	}
	return recalled{enough: heard+1 >= m.Size.Quorum() || broken("recall-of-few")}
}

// isMine reports whether this replica has signed a vote: it signs again, and tells nobody the
// signature, nor how far they agree. Both schemes are deterministic.
func (r *Replica) isMine(signer bft.Signer, v *bft.Vote) bool {
	partial, err := signer.Sign(v.Statement.Bytes(r.cfg.Cluster))
	return err == nil && len(partial) > 0 && subtle.ConstantTimeCompare(partial, v.Partial) == 1
}

// askAgain ends a run without votes when too few others could be asked before it, and it is time to
// ask again.
func (e *epochRun) askAgain() error {
	if !e.unheard {
		return nil
	}
	ticker := time.NewTicker(recallPause)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-e.ctx.Done():
			return e.ctx.Err()
		}
		if len(e.r.cfg.Network.Connected())+1 >= e.config.Size.Quorum() {
			return errRekey
		}
	}
}

// askWhatItSaw asks one peer, and again until the time is up while it is connected, or patient is
// set. It returns nil when there was no answer.
func (r *Replica) askWhatItSaw(ctx context.Context, peer bft.ReplicaID, patient bool) *bft.Vote {
	for {
		answer, err := r.cfg.Network.Call(ctx, peer, methodRecall, nil)
		if err == nil {
			v, err := parseRecalled(answer)
			if err != nil {
				return nil
			}
			return &v
		}
		if !transport.Unavailable(err) || !patient && !slices.Contains(r.cfg.Network.Connected(), peer) {
			return nil
		}
		timer := time.NewTimer(recallAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// recallAgain is the pause before a peer that could not be reached is asked again.
const recallAgain = 20 * time.Millisecond
