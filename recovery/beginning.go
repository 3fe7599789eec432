package recovery

import (
	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
)

// The certificates of epoch 0 are lists of signatures under the keys of the genesis, and a replica
// has that key until its first recovery. So whoever was in q replicas, one after the other, can
// certify another log from the genesis on, with a group key of his own. He is in f until epoch 2
// begins, and in f others until epoch 3 begins: so before that he has no quorum. When epoch 3 has
// begun, f + c + 1 correct replicas have voted to end epoch 2.

// beginning says whether what is certified in epoch 0 counts now: q replicas, this one included, say
// that they are in epoch 0 or 1, and have the keys of the genesis. When epoch 3 has begun, at most
// f + c correct ones and f others say so, which is one too few. Else the others' state is taken,
// under the group key that f + 1 of them name.
func (n *Node) beginning(m *replica.Membership) bool {
	count := 0
	if key := n.keeper.PrivateKey(m.Member(n.cfg.Self).EpochKey); key != nil {
		clear(key)
		count++
	}
	count += n.words.count(m, func(id bft.ReplicaID, w word) bool { return m.Member(id).Accepts(w.key) && w.term.Epoch <= 1 })
	return count >= m.Size.Quorum()
}

// awaitBeginning lets what peers send in epoch 0 wait until it counts, and is false when the node
// ends before that.
func (n *Node) awaitBeginning() bool {
	for {
		news := n.words.news()
		if m := n.state.Membership(); m.Epoch > 0 || n.beginning(m) {
			return true
		}
		select {
		case <-news:
		case <-n.done:
			return false
		}
	}
}

// verifier verifies what others serve, as replica.Config has it.
func (n *Node) verifier(m *replica.Membership) (bft.Scheme, error) {
	s, err := n.keeper.Verifier(m)
	if err == nil && m.Epoch == 0 {
		s = beginningOnly{s, func() bool { return n.beginning(m) }}
	}
	return s, err
}

type beginningOnly struct {
	bft.Scheme
	now func() bool
}

// Verify implements [bft.Scheme].
func (s beginningOnly) Verify(messages, signatures [][]byte) []bool {
	if !s.now() {
		return make([]bool, len(messages))
	}
	return s.Scheme.Verify(messages, signatures)
}
