package replica

import (
	"sync"

	"github.com/reseal-bft/reseal/bft"
)

// messageBytes is what a message takes in memory beside what it has of variable size.
const messageBytes = 512

// messageSize is what a message takes in memory, in bytes.
func messageSize(m bft.Message) int {
	switch x := m.(type) {
	case *bft.Block:
		return messageBytes + len(x.Payload)
	case bft.Vote:
		return messageBytes + len(x.Partial)
	case bft.Certificate:
		return messageBytes + len(x.Signature)
	default:
		return messageBytes
	}
}

// mostQueued is how many messages of a peer the core has yet to see at most: all peers' wait in one
// queue, so that each is time which the others' wait.
const mostQueued = 256

// meter bounds in bytes what has come in and is not done with. What a peer has sent, and the core
// has not seen, has a budget of the peer's own: it is slowed by its own connection, and slows nobody
// else; a message counts as a mostQueued-th of it at least. What the core has decided, and is not
// written or executed, has one too: while it is used up nobody is heard, since a disk that is slower
// than the cluster would let it grow for ever; who falls behind by that catches up over the log.
// Neither queue waits for what a peer says, so both get shorter.
type meter struct {
	each, decisions int // budgets

	mu      sync.Mutex
	room    sync.Cond
	sent    [bft.MaxReplicas + 1]int // by peer
	decided int
	done    bool
}

func (m *meter) init(each, decisions int) {
	m.each, m.decisions = each, decisions
	m.room.L = &m.mu
}

// charge is what a message counts as, in bytes.
func (m *meter) charge(message bft.Message) int {
	return max(messageSize(message), m.each/mostQueued)
}

// await waits until there is room for what a peer sent, and counts it. Something of each peer there
// is always room for.
func (m *meter) await(from bft.ReplicaID, message bft.Message) {
	bytes := m.charge(message)
	m.mu.Lock()
	defer m.mu.Unlock()
	for !m.done && (m.sent[from] > 0 && m.sent[from]+bytes > m.each || m.decided > m.decisions) {
		m.room.Wait()
	}
	m.sent[from] += bytes
}

// count counts what there was room for elsewhere before.
func (m *meter) count(from bft.ReplicaID, message bft.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent[from] += m.charge(message)
}

// seen says that the core has seen something of a peer's.
func (m *meter) seen(from bft.ReplicaID, message bft.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent[from] -= m.charge(message)
	m.room.Broadcast()
}

// decide counts what the core has decided, or, negative, what is carried out of it.
func (m *meter) decide(bytes int) {
	if bytes == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.decided += bytes
	if bytes < 0 {
		m.room.Broadcast()
	}
}

// close lets go of those who wait.
func (m *meter) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done = true
	m.room.Broadcast()
}

// decisionSize is what an effect holds that waits to be carried out, in bytes.
func decisionSize(effect bft.Effect) int {
	switch x := effect.(type) {
	case bft.StoreBlock:
		return len(x.Block.Payload)
	case bft.Finalized:
		return len(x.Block.Payload)
	default:
		return 0
	}
}

func decisionSizes(effects []bft.Effect) (n int) {
	for _, effect := range effects {
		n += decisionSize(effect)
	}
	return n
}
