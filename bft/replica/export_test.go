package replica

import (
	"context"

	"github.com/reseal-bft/reseal/bft"
)

// SnapshotNow writes a snapshot of the certified state, as is done now and then.
func (r *Replica) SnapshotNow() error {
	return r.saveSnapshot(r.ledger.certified.Load())
}

// ForgeSnapshot writes a snapshot like SnapshotNow, but with another state of the application, as an intruder with the disk would.
func (r *Replica) ForgeSnapshot(app bft.State) error {
	c := r.ledger.certified.Load()
	forged := *c.state
	forged.app = app
	chain, err := r.chainTo(c.certificate.Block, c.height)
	if err != nil {
		return err
	}
	return r.cfg.Store.SaveSnapshot(c.height, snapshotOf{&certifiedState{&forged, c.header, c.certificate}, chain})
}

// SnapshotHeight returns the height of the snapshot from which a restart went on.
func (r *Replica) SnapshotHeight() uint64 { return uint64(r.snapshots.height) }

// LeapFrom fetches a peer's snapshot, however near it is.
func (r *Replica) LeapFrom(ctx context.Context, peer bft.ReplicaID) error {
	q, err := r.askSnapshot(ctx, peer)
	if err != nil {
		return err
	}
	return r.fetchSnapshot(q)
}

// CatchUp fetches what others have, before the replica runs.
func (r *Replica) CatchUp(ctx context.Context) error {
	r.awaitPeers(ctx)
	return r.catchUp(ctx)
}

// CertifiedBy returns the kind of the certificate that proves the latest certified state.
func (r *Replica) CertifiedBy() bft.VoteKind {
	if c := r.ledger.certified.Load(); c != nil {
		return c.certificate.Kind
	}
	return 0
}
