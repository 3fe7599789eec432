package bft_test

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/guard"
)

// actor is one replica with what it has on disk.
type actor struct {
	s        *stage
	id       bft.ReplicaID
	core     *bft.Core
	guard    *guard.Guard
	epoch    bft.Epoch
	propose  *bft.Propose
	kept     bft.Restored
	byDigest map[bft.Digest]*bft.Block
	locked   bool          // the key refuses to sign
	timer    time.Duration // the view timer that was last set
}

func (a *actor) start() {
	s := a.s
	cfg := bft.Config{
		Epoch: a.epoch, Size: s.size, Self: a.id, Leaders: s.leaders, Window: s.window, Voter: true, Base: s.bases[a.epoch],
		Timeouts: bft.Timeouts{View: 100 * time.Millisecond, ViewMax: time.Second, Finalize: 10 * time.Millisecond, Idle: 10 * time.Millisecond, Resend: 50 * time.Millisecond, Ahead: time.Second},
	}
	core, err := bft.New(cfg, a.kept)
	if err != nil {
		s.tell(a, "cannot start: %v", err)
		return
	}
	a.core, a.guard, a.propose = core, guard.New(0), nil
	if err := a.guard.Restore(a.kept.Votes); err != nil {
		s.tell(a, "guard: %v", err)
	}
	a.act(core.Start(s.reading()))
}

// act carries out effects, in order, and answers at once what can be answered.
func (a *actor) act(effects []bft.Effect) {
	var answers []bft.Event
	for _, e := range effects {
		if answer := a.effect(e); answer != nil {
			answers = append(answers, answer)
		}
	}
	for _, ev := range answers {
		if a.core != nil {
			a.act(a.core.Step(a.s.reading(), ev))
		}
	}
}

func (a *actor) effect(e bft.Effect) bft.Event {
	s := a.s
	switch e := e.(type) {
	case bft.Sign:
		return a.sign(e.Vote)
	case bft.Broadcast:
		for _, to := range s.actors[1:] {
			if to.id != a.id {
				s.wire = append(s.wire, envelope{a.id, to.id, e.Message})
			}
		}
		if ev, ok := e.Message.(bft.Evidence); ok {
			s.tell(a, "has evidence against %d in view %d", ev.A.Proposer, ev.A.View)
		}
	case bft.Send:
		s.wire = append(s.wire, envelope{a.id, e.To, e.Message})
	case bft.Combine:
		return combine(e, s.size)
	case bft.Verify:
		return bft.Verified{Certificate: e.Certificate, From: e.From, OK: string(e.Certificate.Signature) == "certificate"}
	case bft.Propose:
		s.tell(a, "may propose view %d, height %d on %s%s", e.Header.View, e.Header.Height, s.name(e.Header.Parent), map[bool]string{true: ", the epoch's last"}[e.Empty])
		a.propose = &e
	case bft.StoreBlock:
		a.byDigest[e.Block.Digest()] = e.Block
		a.kept.Blocks = append(a.kept.Blocks, e.Block)
	case bft.StoreCertificate:
		a.kept.Certificates = append(a.kept.Certificates, e.Certificate)
		if e.Certificate.Kind == bft.Finalize {
			s.lastCert[a.epoch] = e.Certificate
		}
		s.tell(a, "has the %s", s.certificate(e.Certificate.Statement))
	case bft.Finalized:
		return a.finalized(e)
	case bft.Fetch:
		s.tell(a, "fetches %s", s.name(e.Block))
		return s.fetch(e)
	case bft.SetTimer:
		if e.Timer.Kind == bft.TimerView {
			a.timer = e.After
		}
	case bft.Accuse:
		s.tell(a, "accuses %d", e.Replica)
	case bft.Diverged:
		s.tell(a, "has diverged at height %d", e.Height)
	}
	return nil
}

var errLocked = errors.New("the key is locked")

func (a *actor) sign(v bft.Vote) bft.Event {
	if err := a.guard.Check(v); err != nil {
		a.s.tell(a, "the guard refuses: %v", err)
		return bft.Signed{Vote: v, Err: err}
	}
	if a.locked {
		a.s.tell(a, "cannot sign: %v", errLocked)
		a.kept.Votes = append(a.kept.Votes, v)
		return bft.Signed{Vote: v, Err: errLocked}
	}
	v.Partial = []byte("partial")
	a.kept.Votes = append(a.kept.Votes, v)
	a.s.tell(a, "votes %s", a.s.vote(v))
	return bft.Signed{Vote: v}
}

func combine(e bft.Combine, size bft.Size) bft.Event {
	answer := bft.Combined{Statement: e.Statement}
	good := 0
	for id := 1; id <= size.N(); id++ {
		switch p, ok := e.Partials[bft.ReplicaID(id)]; {
		case ok && string(p) == "partial":
			good++
		case ok:
			answer.Bad = append(answer.Bad, bft.ReplicaID(id))
		}
	}
	if good >= size.Quorum() {
		answer.Signature = []byte("certificate")
	}
	return answer
}

// finalized executes the block. The state after endAt asks for the handoff.
func (a *actor) finalized(e bft.Finalized) bft.Event {
	s := a.s
	s.tell(a, "FINAL height %d, %s%s", e.Block.Height, s.name(e.Block.Digest()), map[bool]string{true: ", the epoch's last"}[e.Last])
	base := bft.Base{Height: e.Block.Height, Digest: e.Block.Digest(), Time: e.Block.Time, Root: bft.Digest{byte(e.Block.Height)}}
	executed := bft.Executed{Height: base.Height, Root: base.Root, HandoffReady: s.endAt > 0 && base.Height >= s.endAt}
	if e.Last {
		if len(s.bases) == int(a.epoch)+1 {
			s.bases = append(s.bases, base)
		}
		a.epoch++
		a.kept = bft.Restored{}
		s.endAt = 0
		a.start()
		return nil
	}
	if len(a.kept.Executed) == 0 {
		b := s.bases[a.epoch]
		a.kept.Executed = []bft.Executed{{Height: b.Height, Root: b.Root}}
	}
	a.kept.Final, a.kept.FinalView, a.kept.Executed = base, e.Block.View, append(a.kept.Executed, executed)
	return executed
}

func (s *stage) fetch(e bft.Fetch) bft.Event {
	for _, peer := range s.actors[1:] {
		var chain []*bft.Block
		for b := peer.byDigest[e.Block]; b != nil && b.Height > e.Above && peer.core != nil; b = peer.byDigest[b.Parent] {
			chain = append(chain, b)
		}
		if len(chain) > 0 {
			slices.Reverse(chain)
			return bft.Fetched{Blocks: chain}
		}
	}
	return nil
}

// tell prints what a replica does.
func (s *stage) tell(a *actor, format string, args ...any) {
	fmt.Fprintf(&s.out, "%d: %s\n", a.id, fmt.Sprintf(format, args...))
}
