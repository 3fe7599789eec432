package replica

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
)

// methodRecall tells a replica the last epoch and view of which the one asked has had a vote of it, on its own channel. A replica asks before its first vote
// after a start: what it has forgotten, others have not.
const methodRecall = "reseal/recall"

// recallTimeout is how long those that are connected are waited for.
const recallTimeout = 2 * time.Second

// position is a view of an epoch.
type position struct {
	epoch bft.Epoch
	view  bft.View
}

func (p position) after(q position) bool {
	return p.epoch > q.epoch || p.epoch == q.epoch && p.view > q.view
}

// recall remembers how far each peer has voted. One that lies about its own votes harms only itself.
type recall struct {
	mu    sync.Mutex
	peers map[bft.ReplicaID]position
}

func (c *recall) note(from bft.ReplicaID, v bft.Vote) {
	at := position{v.Epoch, v.View}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peers == nil {
		c.peers = make(map[bft.ReplicaID]position)
	}
	if at.after(c.peers[from]) {
		c.peers[from] = at
	}
}

func (c *recall) of(peer bft.ReplicaID) position {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peers[peer]
}

func (r *Replica) serveRecall(_ context.Context, from *transport.Sender, data []byte) ([]byte, error) {
	if len(data) > 0 || from == nil {
		return nil, errMalformedCall
	}
	at := r.recall.of(from.ID)
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(at.epoch)), uint64(at.view)), nil
}

func parsePosition(data []byte) (p position, err error) {
	s := cryptobyte.String(data)
	if !s.ReadUint64((*uint64)(&p.epoch)) || !s.ReadUint64((*uint64)(&p.view)) || !s.Empty() {
		err = errMalformedCall
	}
	return p, err
}

// askWhatTheySaw asks all others for this replica's votes, and says why, by f + 1 of them, it has forgotten some; empty if it has not. Views up to the final
// one do not count. Late finalize votes may still go to one of them, and what this replica said there before is then covered by its store alone (docs/protocol.md, Forgotten
// votes).
//
// It waits for those that are connected. Without a mark, which may have been removed, it waits for others too, until f + 1 correct ones have answered.
func (r *Replica) askWhatTheySaw(ctx context.Context, m *Membership, restored *bft.Restored) string {
	known := position{m.Epoch, restored.FinalView}
	for _, v := range restored.Votes {
		known.view = max(known.view, v.View)
	}
	unsure := len(r.found.raw) == 0 && r.ledger.latest.Load().height > 0
	ctx, cancel := context.WithTimeout(ctx, recallTimeout)
	defer cancel()
	peers := r.askOrder(nil)
	answers := make(chan *position, len(peers))
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	for _, peer := range peers {
		asking.Go(func() { answers <- r.askWhatItSaw(ctx, peer, unsure) })
	}
	heard, more := 0, 0
	for range peers {
		at := <-answers
		if at == nil {
			continue
		}
		heard++
		if at.after(known) {
			more++
		}
		if more > m.Size.F || more > 0 && broken("recall-of-one") {
			return fmt.Sprintf("%d other replicas have had votes of this one that its store does not know, above view %d", more, known.view)
		}
		if unsure && heard > 2*m.Size.F && more == 0 {
			break
		}
	}
	return ""
}

// askWhatItSaw asks one peer, and again until the time is up while it is connected, or patient is set. It returns nil when there was no answer.
func (r *Replica) askWhatItSaw(ctx context.Context, peer bft.ReplicaID, patient bool) *position {
	for {
		answer, err := r.cfg.Network.Call(ctx, peer, methodRecall, nil)
		if err == nil {
			at, err := parsePosition(answer)
			if err != nil {
				return nil
			}
			return &at
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
