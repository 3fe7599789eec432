package sim

import (
	"encoding/binary"
	"fmt"

	"github.com/reseal-bft/reseal/bft"
)

// effectCode tells effects apart in the hash of a run.
func effectCode(e bft.Effect) uint64 {
	word := func(kind int, d bft.Digest) uint64 { return uint64(kind) ^ binary.BigEndian.Uint64(d[:]) }
	switch e := e.(type) {
	case bft.Sign:
		return word(1+int(e.Vote.Kind), e.Vote.Block)
	case bft.Broadcast:
		return 10
	case bft.Send:
		return 11
	case bft.Combine:
		return word(20+int(e.Statement.Kind), e.Statement.Block)
	case bft.Verify:
		return 30
	case bft.Propose:
		return word(40, e.Header.Parent)
	case bft.StoreBlock:
		return 50
	case bft.StoreCertificate:
		return word(60+int(e.Certificate.Kind), e.Certificate.Block)
	case bft.Finalized:
		return word(70, e.Block.Digest())
	case bft.Fetch:
		return word(80, e.Block)
	case bft.SetTimer:
		return 90 + uint64(e.Timer.Kind)
	case bft.Accuse:
		return 100
	case bft.Diverged:
		return 110
	case bft.ClockOff:
		return 120
	}
	return 0
}

// describe puts an effect into words.
func describe(r *replica, e bft.Effect) string {
	at := fmt.Sprintf("e%d v%-3d", r.epoch, r.core.View())
	switch e := e.(type) {
	case bft.Sign:
		return at + " sign " + message(e.Vote)
	case bft.Broadcast:
		return at + " broadcast " + message(e.Message)
	case bft.Send:
		return fmt.Sprintf("%s send to %d %s", at, e.To, message(e.Message))
	case bft.Combine:
		return fmt.Sprintf("%s combine %s of %d", at, statement(e.Statement), len(e.Partials))
	case bft.Verify:
		return fmt.Sprintf("%s verify %s from %d", at, statement(e.Certificate.Statement), e.From)
	case bft.Propose:
		return fmt.Sprintf("%s propose view %d height %d on %v, state %d, idle %v", at, e.Header.View, e.Header.Height, e.Header.Parent, e.Header.StateHeight, e.MayIdle)
	case bft.StoreBlock:
		return fmt.Sprintf("%s store block %v of view %d", at, e.Block.Digest(), e.Block.View)
	case bft.StoreCertificate:
		return at + " store " + message(e.Certificate)
	case bft.Finalized:
		last := ""
		if e.Last {
			last = ", the epoch's last"
		}
		return fmt.Sprintf("%s FINAL height %d, block %v of view %d%s", at, e.Block.Height, e.Block.Digest(), e.Block.View, last)
	case bft.Fetch:
		return fmt.Sprintf("%s fetch block %v of view %d above height %d from %v", at, e.Block, e.View, e.Above, e.Hint)
	case bft.SetTimer:
		return fmt.Sprintf("%s timer %d in %v", at, e.Timer.Kind, e.After)
	case bft.Accuse:
		return fmt.Sprintf("%s accuse %d", at, e.Replica)
	case bft.Diverged:
		return fmt.Sprintf("%s diverged at height %d", at, e.Height)
	case bft.ClockOff:
		return fmt.Sprintf("%s clock: jumped by %v, behind by %v", at, e.Jumped, e.Behind)
	}
	return fmt.Sprintf("%s %T", at, e)
}

// message puts a message into words.
func message(m bft.Message) string {
	switch m := m.(type) {
	case *bft.Block:
		return fmt.Sprintf("block %v: view %d, height %d, parent %v of view %d, state %d, %d bytes", m.Digest(), m.View, m.Height, m.Parent, m.ParentView, m.StateHeight, len(m.Payload))
	case bft.Vote:
		if m.Kind != bft.Finalize && !m.First {
			return "fallback vote " + statement(m.Statement)
		}
		return "vote " + statement(m.Statement)
	case bft.Certificate:
		return "certificate " + statement(m.Statement)
	case bft.SignedHeader:
		return fmt.Sprintf("header %v of view %d", m.Digest(), m.View)
	case bft.Evidence:
		return fmt.Sprintf("evidence against %d in view %d", m.A.Proposer, m.A.View)
	case bft.Status:
		return fmt.Sprintf("status: from view %d, final height %d, wants finality: %t", m.View, m.FinalHeight, m.WantFinality)
	}
	return fmt.Sprintf("%T", m)
}

func statement(s bft.Statement) string {
	if s.Kind == bft.Nullify {
		return fmt.Sprintf("nullify(%d)", s.View)
	}
	return fmt.Sprintf("%s(%d, %v)", s.Kind, s.View, s.Block)
}
