package wholesim

import (
	"fmt"

	"github.com/reseal-bft/reseal/bft"
)

// words puts a message into words.
func words(m bft.Message) string {
	switch m := m.(type) {
	case *bft.Block:
		end := ""
		if m.EpochEnd {
			end = ", the end of its epoch"
		}
		return fmt.Sprintf("block %v: view %d/%d, height %d, parent %v of view %d, state %d, %d bytes%s",
			m.Digest(), m.Epoch, m.View, m.Height, m.Parent, m.ParentView, m.StateHeight, len(m.Payload), end)
	case bft.Vote:
		if m.Kind != bft.Finalize && !m.First {
			return "fallback vote " + statement(m.Statement)
		}
		return "vote " + statement(m.Statement)
	case bft.Certificate:
		return "certificate " + statement(m.Statement)
	case bft.SignedHeader:
		return fmt.Sprintf("header %v of view %d/%d", m.Digest(), m.Epoch, m.View)
	case bft.Evidence:
		return fmt.Sprintf("evidence against %d in view %d/%d", m.A.Proposer, m.A.Epoch, m.A.View)
	case bft.Status:
		return fmt.Sprintf("status %+v", m)
	}
	return fmt.Sprintf("%T", m)
}

func statement(s bft.Statement) string {
	if s.Kind == bft.Nullify {
		return fmt.Sprintf("nullify(%d/%d)", s.Epoch, s.View)
	}
	return fmt.Sprintf("%s(%d/%d, %v)", s.Kind, s.Epoch, s.View, s.Block)
}
