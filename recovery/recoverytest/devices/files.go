package devices

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/file"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/recovery/recoverytest"
)

// files is passphrase files: nothing protects what they hold from who had the passphrase, so there
// is nothing to try.
type files struct{ dir string }

// Fleet implements [Maker].
func (f files) Fleet() (recoverytest.Fleet, error) {
	dir, err := os.MkdirTemp(f.dir, "files")
	return &fileFleet{dir: dir}, err
}

type fileFleet struct {
	plain
	dir string
}

func (f *fileFleet) uri(id bft.ReplicaID) string {
	return "file:" + filepath.Join(f.dir, fmt.Sprint("keystore", id))
}

// The passphrase has 128 bits: the least work factor suffices, and costs the least.
func (f *fileFleet) options() keystore.Options {
	return keystore.NewOptions(keystore.WithPassphrase(keystore.NewSecret([]byte("0f2c6d1f7b3e4a5c96d8e7f00a1b2c3d"))), keystore.WithWorkFactor(8))
}

func (f *fileFleet) Init(ctx context.Context, id bft.ReplicaID) (keystore.Keystore, error) {
	return file.Init(ctx, f.uri(id), f.options())
}

func (f *fileFleet) Reboot(ctx context.Context, id bft.ReplicaID) (keystore.Keystore, error) {
	return file.Open(ctx, f.uri(id), f.options())
}

func (f *fileFleet) Offline(ctx context.Context, id bft.ReplicaID, use func(keystore.Keystore) error) error {
	return offline(use)(f.Reboot(ctx, id))
}

func (f *fileFleet) Close() error { return os.RemoveAll(f.dir) }

// offline uses a keystore that was opened, and closes it.
func offline(use func(keystore.Keystore) error) func(keystore.Keystore, error) error {
	return func(ks keystore.Keystore, err error) error {
		if err != nil {
			return err
		}
		defer ks.Close()
		return use(ks)
	}
}

// plain is what there is to be said and done of devices that know nothing of boots, and on which
// there is nothing to try.
type plain struct{}

func (plain) Found(*governance.Genesis) error { return nil }

func (plain) Revocation(*governance.View) (governance.OrderBody, error) { return nil, nil }

func (plain) Copy(bft.ReplicaID) error { return nil }

func (plain) Plant(bft.ReplicaID, bft.Epoch) error { return nil }

func (plain) Try(context.Context, bft.ReplicaID, bool) ([]recoverytest.Stolen, error) {
	return nil, nil
}

func (plain) Misboot(context.Context, bft.ReplicaID, bool) ([]recoverytest.Stolen, error) {
	return nil, nil
}
