package replica

import (
	"crypto/ecdsa"
	"crypto/ed25519"

	"github.com/reseal-bft/reseal/bft"
)

// System is the part of the replicated state that governs the cluster itself: membership, policy,
// recovery rounds. Its operations travel in requests of [request.System]. Like the application it
// is deterministic, and called from one goroutine.
type System interface {
	// Apply executes the system operations of one final block, in order, and returns a result for
	// each. It is called for every block, also when there are none: deadlines run by block time.
	Apply(block BlockInfo, operations []bft.Operation) (results [][]byte)
	// HandoffReady says that the next epoch can begin: the next block ends this one.
	HandoffReady() bool
	// EndEpoch begins the next epoch. It is called instead of Apply for an epoch's last block.
	EndEpoch(block BlockInfo)
	// Membership describes the current epoch. The result is not changed afterwards. Unlike the
	// other methods it may be called from any goroutine.
	Membership() *Membership
	// Root is a digest of the whole system state.
	Root() bft.Digest
	// Snapshot encodes the state, at most 64 MiB; Restore replaces the state by it and must not
	// trust it: the replica checks the root afterwards.
	Snapshot() []byte
	Restore(snapshot []byte) error
}

// BlockInfo is what an executed operation may know of its block.
type BlockInfo struct {
	Epoch  bft.Epoch
	Height bft.Height
	Digest bft.Digest
	Time   int64 // milliseconds since 1970
}

// Membership describes one epoch.
type Membership struct {
	Epoch bft.Epoch
	Size  bft.Size
	// Base is the block that the epoch builds on: the one given to EndEpoch, or the genesis.
	Base    bft.Base
	Members []Member // by ID
	// Leaders is the schedule of this epoch.
	Leaders []bft.ReplicaID
	// GroupKey is the group public key, 96 bytes; nil in epoch 0.
	GroupKey []byte
}

// Member is a replica as the log knows it.
type Member struct {
	ID       bft.ReplicaID
	Address  string
	Identity *ecdsa.PublicKey
	// EpochKey signs the member's blocks and authenticates its connections in this epoch. NextKey,
	// if set, is the fresh key that it attested after its recovery: its connections may already use
	// it.
	EpochKey, NextKey ed25519.PublicKey
}

// Member returns the member with the given ID, or nil.
func (m *Membership) Member(id bft.ReplicaID) *Member {
	for i := range m.Members {
		if m.Members[i].ID == id {
			return &m.Members[i]
		}
	}
	return nil
}

// Accepts reports whether key authenticates the member's connections now.
func (m *Member) Accepts(key ed25519.PublicKey) bool {
	return key != nil && (key.Equal(m.EpochKey) || m.NextKey != nil && key.Equal(m.NextKey))
}
