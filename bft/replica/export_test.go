package replica

import (
	"context"

	"github.com/reseal-bft/reseal/bft"
)

// Budgets of the tests, in bytes.
const (
	poolBytes   = 64 << 20
	testResults = 8 * bft.MaxBlockResults
)

// SnapshotNow writes a snapshot of the certified state, as is done now and then.
func (r *Replica) SnapshotNow() error {
	return r.saveSnapshot(context.Background(), r.ledger.certified.Load())
}

// ForgeSnapshot writes a snapshot like SnapshotNow, but with another state of the application, as
// an intruder with the disk would.
func (r *Replica) ForgeSnapshot(app bft.State) error {
	c := r.ledger.certified.Load()
	forged := *c.state
	forged.app = app
	return r.saveSnapshot(context.Background(), &certifiedState{&forged, c.header, c.certificate})
}

// SnapshotHeight returns the height of the snapshot from which a restart went on.
func (r *Replica) SnapshotHeight() uint64 { return uint64(r.snapshots.height) }

// LeapFrom fetches a peer's snapshot, however near it is.
func (r *Replica) LeapFrom(ctx context.Context, peer bft.ReplicaID) error {
	o, err := r.askHead(ctx, peer)
	if err != nil {
		return err
	}
	if err := o.verify(r, r.Membership()); err != nil {
		return err
	}
	return r.fetchSnapshot(ctx, o, firstPatience)
}

// CatchUp fetches what others have, before the replica runs.
func (r *Replica) CatchUp(ctx context.Context) error {
	r.awaitPeers(ctx)
	_, err := r.catchUp(ctx)
	return err
}

// CertifiedBy returns the kind of the certificate that proves the latest certified state.
func (r *Replica) CertifiedBy() bft.VoteKind {
	if c := r.ledger.certified.Load(); c != nil {
		return c.certificate.Kind
	}
	return 0
}
