package recoverytest

import (
	"context"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// Fleet is what the replicas of a cluster keep their secrets in, all of one kind, and what an
// intruder can do to it. Package devices has those of all backends. It is used by one goroutine,
// besides its keystores.
type Fleet interface {
	// Init makes the keystore of a replica, on a new device.
	Init(ctx context.Context, id bft.ReplicaID) (keystore.Keystore, error)
	// Found says in a genesis, whose members have their identities, what there is to be said of
	// their devices.
	Found(g *governance.Genesis) error
	// Reboot resets a replica's machine, has it boot what is approved, and opens the keystore. The
	// one before was closed.
	Reboot(ctx context.Context, id bft.ReplicaID) (keystore.Keystore, error)
	// Offline opens the keystore of a machine that is off, as somebody does who has its disk and
	// its device.
	Offline(ctx context.Context, id bft.ReplicaID, use func(keystore.Keystore) error) error
	// Revocation is an order that revokes a boot state in which no replica runs; nil where none is
	// attested.
	Revocation(v *governance.View) (governance.OrderBody, error)
	// Close ends what runs, and removes what was made.
	Close() error

	// Copy copies the disk that a replica's keystore is on, for ever.
	Copy(id bft.ReplicaID) error
	// Plant leaves in the device and on the disk of a replica, for the epochs to come, what one can
	// who has all rights there.
	Plant(id bft.ReplicaID, epoch bft.Epoch) error
	// Try tries all copies in all ways: inside a replica with all rights, outside with those that
	// another user of the machine has.
	Try(ctx context.Context, id bft.ReplicaID, inside bool) ([]Stolen, error)
	// Misboot resets a replica's machine into whatever one likes who has no approval for it, and
	// tries all copies there. Revoked: the device should refuse what was revoked. The keystore was
	// closed; Reboot follows.
	Misboot(ctx context.Context, id bft.ReplicaID, revoked bool) ([]Stolen, error)
}

// Stolen is what an intruder got of a device.
type Stolen struct {
	// How says in which way, for people.
	How string
	// Secret was sealed by the replica; the judge finds out what it is worth. Nil: that it worked
	// is the finding.
	Secret []byte
}
