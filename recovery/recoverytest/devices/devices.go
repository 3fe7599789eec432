package devices

import (
	"context"
	"fmt"

	"github.com/reseal-bft/reseal/recovery/recoverytest"
)

// Kinds lists the kinds of devices for messages.
const Kinds = "file, softhsm or swtpm"

// Maker makes fleets of one kind. Safe for concurrent use.
type Maker interface {
	// Fleet is a new one, in a directory that its Close removes.
	Fleet() (recoverytest.Fleet, error)
}

// New prepares for fleets of a kind in a directory, which the caller removes; so many of them play
// at once, at most.
func New(ctx context.Context, kind, dir string, atOnce int) (Maker, error) {
	switch kind {
	case "file":
		return files{dir}, nil
	case "softhsm":
		return newTokens(ctx, dir, atOnce)
	case "swtpm":
		return newTPMs(dir)
	}
	return nil, fmt.Errorf("keystore %q is not known: choose %s", kind, Kinds)
}
