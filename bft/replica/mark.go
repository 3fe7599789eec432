package replica

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
)

// mark says how far the replica was, and is kept outside the store: if the store knows less than
// the mark, it was put back to an earlier time, or lost something, and with it votes that the
// replica has cast. It then must not vote before the next epoch.
type mark struct {
	cluster bft.ClusterID
	self    bft.ReplicaID
	epoch   bft.Epoch
	// forgetful: the replica does not vote in this epoch.
	forgetful bool
	// voted has the highest view of the epoch in which the replica has voted, by kind.
	voted [bft.Finalize + 1]bft.View
	// certified and final are heights: of the last state that a certificate proved, and of the last
	// block that the store has as final.
	certified, final bft.Height
}

const (
	markDomain = "reseal/v1/mark\x00"
	markSize   = len(markDomain) + 32 + 2 + 8 + 1 + 3*8 + 2*8 + sha256.Size
	// markEvery is how often a mark that has changed is written; at a clean stop it is exact.
	markEvery = time.Second
)

// marshal encodes the mark, with a tag under the key; without a key the tag is a checksum.
func (m *mark) marshal(key []byte) []byte {
	b := cryptobyte.NewBuilder([]byte(markDomain))
	b.AddBytes(m.cluster[:])
	b.AddUint16(uint16(m.self))
	b.AddUint64(uint64(m.epoch))
	forgetful := uint8(0)
	if m.forgetful {
		forgetful = 1
	}
	b.AddUint8(forgetful)
	for _, view := range m.voted[bft.Notarize:] {
		b.AddUint64(uint64(view))
	}
	b.AddUint64(uint64(m.certified))
	b.AddUint64(uint64(m.final))
	body := b.BytesOrPanic()
	return append(body, markTag(key, body)...)
}

func markTag(key, body []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(body)
	return h.Sum(nil)
}

// parseMark parses what marshal wrote, and only that. The tag remains to be checked, by [markIsGood].
func parseMark(data []byte) (*mark, error) {
	s := cryptobyte.String(data)
	m := new(mark)
	var domain, tag []byte
	var forgetful uint8
	ok := len(data) == markSize && s.ReadBytes(&domain, len(markDomain)) && string(domain) == markDomain && s.CopyBytes(m.cluster[:]) &&
		s.ReadUint16((*uint16)(&m.self)) && s.ReadUint64((*uint64)(&m.epoch)) && s.ReadUint8(&forgetful) && forgetful <= 1
	for kind := bft.Notarize; ok && kind <= bft.Finalize; kind++ {
		ok = s.ReadUint64((*uint64)(&m.voted[kind]))
	}
	if !ok || !s.ReadUint64((*uint64)(&m.certified)) || !s.ReadUint64((*uint64)(&m.final)) || !s.ReadBytes(&tag, sha256.Size) || !s.Empty() {
		return nil, errors.New("it is damaged")
	}
	m.forgetful = forgetful == 1
	return m, nil
}

// markIsGood checks the tag of an encoded mark.
func markIsGood(data, key []byte) bool {
	body := data[:len(data)-sha256.Size]
	return hmac.Equal(data[len(body):], markTag(key, body)) || broken("mark-tag")
}

// found is the mark that was there at the start, and what the store knew then.
type found struct {
	raw   []byte // nil: there was none
	mark  *mark  // nil: it could not be read
	voted [bft.Finalize + 1]bft.View
	final bft.Height
}

// findMark reads the mark, and what the store knows, before anything is fetched from others.
func (r *Replica) findMark() error {
	f := &r.found
	var err error
	if f.raw, err = r.cfg.Store.ReadMark(); err != nil {
		r.log.Error("the mark beside the store cannot be read, and counts as damaged: remove it, while the replica is stopped, when the disk is in order again", "error", err)
		f.raw = []byte{}
	}
	if f.raw == nil {
		return nil
	}
	if f.mark, err = parseMark(f.raw); err != nil {
		return nil // see forgot
	}
	// What was executed, not what is called final: blocks that could not be replayed are lost.
	f.final = r.ledger.latest.Load().height
	votes, err := r.cfg.Store.Votes(f.mark.epoch)
	if err != nil {
		return err
	}
	for _, v := range votes {
		f.voted[v.Kind] = max(f.voted[v.Kind], v.View)
	}
	last, err := r.cfg.Store.BlockAt(f.final)
	if err == nil && last != nil && last.Epoch == f.mark.epoch {
		for kind := range f.voted { // the store forgets votes far below the final view on purpose
			f.voted[kind] = max(f.voted[kind], last.View)
		}
	}
	return err
}

// forgot says why, by the mark, the replica has forgotten votes of an epoch; empty if it has not.
// The key is the one for that epoch's marks. Live says that the epoch has begun in this process:
// then a mark that the key does not prove says nothing of it, or who once had the disk could
// silence a replica for good.
func (f *found) forgot(cluster bft.ClusterID, self bft.ReplicaID, epoch bft.Epoch, key []byte, live bool) string {
	switch m := f.mark; {
	case f.raw == nil, live && (m == nil || m.epoch != epoch || !markIsGood(f.raw, key)):
		return ""
	case m == nil, m.cluster != cluster, m.self != self:
		return "the mark beside the store is damaged, or another replica's"
	case m.epoch < epoch:
		return "" // it says nothing of this epoch
	case m.epoch > epoch:
		return fmt.Sprintf("the store is of epoch %d, and this replica was in epoch %d before", epoch, m.epoch)
	case !markIsGood(f.raw, key):
		return "the mark beside the store is not one that this replica made in this epoch"
	case m.forgetful && !broken("mark-forgiving"):
		return "it was so before the restart"
	case m.final > f.final && !broken("mark-final"):
		return fmt.Sprintf("the store knows the log up to height %d, and this replica knew it up to %d", f.final, m.final)
	case m.votedAbove(&f.voted):
		return "this replica has voted in views of which the store knows nothing"
	}
	return ""
}

func (m *mark) votedAbove(known *[bft.Finalize + 1]bft.View) bool {
	for kind, view := range m.voted {
		if view > known[kind] && !broken("mark-views") {
			return true
		}
	}
	return false
}

// amnesia says that the replica casts no votes in an epoch, and why.
type amnesia struct {
	epoch  bft.Epoch
	reason string
}

// remember decides whether the replica may vote in an epoch whose keys it has, and takes them away
// if not. What neither its mark nor a quorum knows beyond its store, it has not forgotten. It
// reports whether too few could be asked: then it follows without votes, and asks again. That costs
// no progress, since without a quorum there is none.
func (r *Replica) remember(ctx context.Context, m *Membership, keys *EpochKeys, restored *bft.Restored) (unheard bool) {
	if keys.Signer == nil {
		return false
	}
	a := r.amnesia.Load()
	if a == nil || a.epoch < m.Epoch {
		a = nil
		if reason := r.found.forgot(r.cfg.Cluster, r.cfg.Self, m.Epoch, keys.MarkKey, r.live); reason != "" {
			a = &amnesia{m.Epoch, reason}
		} else if !r.asked {
			others := r.askWhatTheySaw(ctx, m, keys.Signer, restored)
			if others.forgotten != "" {
				a = &amnesia{m.Epoch, others.forgotten}
			}
			unheard = a == nil && !others.enough
		}
		r.asked = a == nil && !unheard
		r.amnesia.Store(a)
	}
	if a == nil && !unheard {
		return false
	}
	defer func() { keys.Signer, keys.BlockKey = nil, nil }()
	if unheard {
		r.log.Info("too few others could be asked for this replica's votes: it follows, and votes when a quorum has answered", "epoch", m.Epoch)
		return true
	}
	r.log.Error("this replica has forgotten votes that it has cast, and does not vote before the next epoch. Its store was put back to an earlier time, or is "+
		"damaged: find out how, and leave the replica running; it follows the log, and votes again after the next recovery round", "epoch", a.epoch, "reason", a.reason)
	forgetful := mark{cluster: r.cfg.Cluster, self: r.cfg.Self, epoch: a.epoch, forgetful: true, final: r.ledger.latest.Load().height}
	if err := r.cfg.Store.WriteMark(forgetful.marshal(keys.MarkKey)); err != nil {
		r.log.Error("the mark beside the store cannot be written", "error", err)
	}
	return false
}

// keepMark writes the mark now and then.
func (e *epochRun) keepMark() error {
	ticker := time.NewTicker(markEvery)
	defer ticker.Stop()
	var last mark
	failed := false
	for {
		if now := e.mark(); now != last {
			err := e.writeMark(&now)
			if err == nil {
				last = now
			} else if !failed {
				e.r.log.Error("the mark beside the store cannot be written: a store that is put back may go unnoticed", "error", err)
			}
			failed = err != nil
		}
		select {
		case <-e.ctx.Done():
			return e.ctx.Err()
		case <-ticker.C:
		}
	}
}

// mark is how far the replica is by what the store holds.
func (e *epochRun) mark() mark {
	m := mark{cluster: e.config.Cluster, self: e.config.Self, epoch: e.config.Epoch, final: bft.Height(e.written.Load())}
	for kind := range m.voted {
		m.voted[kind] = bft.View(e.voted[kind].Load())
	}
	if c := e.r.ledger.certified.Load(); c != nil {
		m.certified = c.height
	}
	return m
}

// writeMark writes a mark when all that it tells of is durable. A replica without a share has no
// votes to remember.
func (e *epochRun) writeMark(m *mark) error {
	if e.keys.Signer == nil {
		return nil
	}
	if err := e.r.cfg.Store.Sync(); err != nil {
		return err
	}
	return e.r.cfg.Store.WriteMark(m.marshal(e.keys.MarkKey))
}
