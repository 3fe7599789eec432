package replica

import "github.com/reseal-bft/reseal/bft"

// SnapshotNow writes a snapshot of the certified state, as is done now and then.
func (r *Replica) SnapshotNow() error {
	c := r.ledger.certified.Load()
	return r.cfg.Store.SaveSnapshot(c.height, snapshotOf{c})
}

// ForgeSnapshot writes a snapshot like SnapshotNow, but with another state of the application, as an intruder with the disk would.
func (r *Replica) ForgeSnapshot(app bft.State) error {
	c := r.ledger.certified.Load()
	forged := *c.state
	forged.app = app
	return r.cfg.Store.SaveSnapshot(c.height, snapshotOf{&certifiedState{&forged, c.header, c.certificate}})
}

// SnapshotHeight returns the height of the snapshot from which a restart went on.
func (r *Replica) SnapshotHeight() uint64 { return uint64(r.snapshots.height) }
