package replica

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
)

// What a core makes good by itself: less than so many blocks and bytes of payload.
const (
	littleBehind      = 32
	littleBehindBytes = 1 << 20
)

// farBehind is the distance beyond which the log is fetched in order, rather than block by block.
const farBehind = 256

// catchUp fetches and executes the log from where the replica stands until f + 1 others, so a
// correct one, have little to add: the core takes it from there, since the log grows meanwhile. It
// needs no peer: alone, it returns at once. It reports whether so many agreed.
//
// A peer that is slow, or serves what does not prove right, is left for the next one, and asked
// last from then on. When nobody was fast enough, all are given more time: so a slow network has
// its way too.
func (r *Replica) catchUp(ctx context.Context) (agreed bool, err error) {
	for limit := firstPatience; ; limit *= 2 {
		if _, err := r.leap(ctx, limit, r.cfg.Retention.Leap); err != nil {
			return false, err
		}
		agree, slow, failed := 0, 0, 0
		for _, peer := range r.askOrder(nil) {
			err := r.followLog(ctx, peer, newPatience(limit))
			switch {
			case ctx.Err() != nil:
				return false, ctx.Err()
			case errors.Is(err, errFatal):
				return false, err
			case err == nil:
				agree++
			case errors.Is(err, errSlow):
				slow++
				r.merits.blame(peer)
				r.log.Warn("a replica serves the log too slowly; asking another", "replica", peer)
			case !transport.Unavailable(err):
				failed++
				r.merits.blame(peer)
				r.complaints.about(peer, "catching up failed; asking another", err)
			}
			if agree > r.Membership().Size.F {
				return true, nil
			}
		}
		if failed > 0 { // they may have cut the log: it is cut by bytes, so a snapshot may be nearer than is worth a leap
			leapt, err := r.leap(ctx, limit, 1)
			if err != nil {
				return false, err
			}
			if leapt {
				limit /= 2
				continue
			}
		}
		if slow == 0 || limit >= lastPatience {
			return false, nil
		}
	}
}

// followLog executes what one peer can prove to be final above this replica's height, until that is
// little.
func (r *Replica) followLog(ctx context.Context, peer bft.ReplicaID, p *patience) error {
	for {
		epoch := r.cfg.System.Membership().Epoch
		got, err := r.fetchPiece(ctx, peer, p)
		if err != nil {
			return err
		}
		ended := epoch != r.cfg.System.Membership().Epoch
		if !ended && len(got.blocks) < littleBehind && got.bytes() < littleBehindBytes {
			return nil
		}
	}
}

// isAhead reports whether a peer can prove that it is in a later epoch, or far ahead in this one. A
// claim alone does not stop the core; nor does a log of what the core knows to be final, and this
// replica has yet to execute: any peer could show it that.
func (r *Replica) isAhead(ctx context.Context, peer bft.ReplicaID) bool {
	p, err := r.askPiece(ctx, peer, newPatience(firstPatience))
	first := r.Membership().Epoch == 0
	if err == nil && len(p.blocks) > 0 {
		if c, err := r.check(p); err == nil || !first {
			return err == nil && (c.end.Last != 0 || c.isLong(r.known()))
		}
	}
	if first { // the log may be cut, or prove nothing any more; and before f + 1 have named the group key, the head of one proves nothing
		return slices.ContainsFunc(r.askHeads(ctx), func(o *offer) bool { return o.block.Height > r.ledger.latest.Load().height })
	}
	h, err := r.askHead(ctx, peer)
	return err == nil && h.verify(r, r.Membership()) == nil && r.isFar(h)
}

// known is the height up to which this replica knows the log.
func (r *Replica) known() bft.Height {
	height := r.ledger.latest.Load().height
	if run := r.run.Load(); run != nil {
		height = max(height, bft.Height(run.final.Load()))
	}
	return height
}

// isLong reports whether a piece has so much above a height that the log is better followed than
// fetched block by block.
func (p *piece) isLong(above bft.Height) bool {
	blocks, bytes := 0, 0
	for _, b := range p.blocks {
		if b.Height > above {
			blocks, bytes = blocks+1, bytes+len(b.Payload)
		}
	}
	return blocks >= farBehind/2 || bytes >= pieceBytes/2
}

// isFar reports whether an offered snapshot is of a height that is better reached by catching up.
func (r *Replica) isFar(o *offer) bool {
	return o.block.Height > r.known()+farBehind
}

// merits remembers which peers failed to help, for as long as the process lasts: they are asked
// after the others.
type merits struct {
	mu     sync.Mutex
	blamed map[bft.ReplicaID]int
}

func (m *merits) blame(peer bft.ReplicaID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.blamed == nil {
		m.blamed = make(map[bft.ReplicaID]int)
	}
	m.blamed[peer]++
}

func (m *merits) of(peer bft.ReplicaID) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if broken("merits-forgotten") {
		return 0
	}
	return m.blamed[peer]
}

// askOrder returns the other members: the hinted ones first, the rest in random order, but those
// that failed before last.
func (r *Replica) askOrder(hint []bft.ReplicaID) []bft.ReplicaID {
	order := append([]bft.ReplicaID(nil), hint...)
	members := r.Membership().Members
	for _, i := range rand.Perm(len(members)) {
		order = append(order, members[i].ID)
	}
	seen := map[bft.ReplicaID]bool{r.cfg.Self: true}
	distinct := order[:0]
	for _, id := range order {
		if !seen[id] {
			seen[id] = true
			distinct = append(distinct, id)
		}
	}
	slices.SortStableFunc(distinct, func(a, b bft.ReplicaID) int { return r.merits.of(a) - r.merits.of(b) })
	return distinct
}

// The least that a peer must serve is minRate bytes a second, measured over the time that it is
// waited for: patience runs out with that time, is filled up again by what comes, and never exceeds
// its limit. A limit that was too short for all peers is doubled.
const (
	minRate       = 512 << 10
	firstPatience = 4 * time.Second
	lastPatience  = 64 * time.Second
)

// errSlow says that a peer serves less than the minimum rate.
var errSlow = errors.New("it serves too slowly")

// patience is how much longer a peer is waited for. It is used by one goroutine.
type patience struct{ left, limit time.Duration }

func newPatience(limit time.Duration) *patience { return &patience{limit, limit} }

// call makes one call, as long as the patience lasts.
func (p *patience) call(ctx context.Context, network Network, peer bft.ReplicaID, method string, request []byte) ([]byte, error) {
	limited, cancel := context.WithTimeout(ctx, p.left)
	defer cancel()
	began := time.Now()
	answer, err := network.Call(limited, peer, method, request)
	took := time.Since(began)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return nil, errSlow
	}
	return answer, p.spend(took, len(answer), err)
}

// spend takes note of a call that took so long and brought so many bytes.
func (p *patience) spend(took time.Duration, bytes int, err error) error {
	if broken("patience-endless") {
		return err
	}
	p.left = min(p.limit, p.left-took+time.Duration(bytes)*time.Second/minRate)
	if err == nil && p.left <= 0 {
		return errSlow
	}
	return err
}
