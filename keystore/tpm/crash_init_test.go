package tpm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
	"github.com/reseal-bft/reseal/keystore/swtpm"
	"github.com/stretchr/testify/require"
)

// TestInitCrashes stops Init after every write and every command by which it takes the
// hierarchies. Whatever the TPM asks for afterwards is on the disk: with that, Init makes a
// keystore in a new directory, and all hierarchies have an authorization.
func TestInitCrashes(t *testing.T) {
	operator, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	made := startTPM(t)
	manufactured := filepath.Dir(made.Socket())
	require.NoError(t, made.Close())
	state, err := os.ReadFile(filepath.Join(manufactured, "tpm2-00.permall"))
	require.NoError(t, err)
	fresh := func(t *testing.T) *swtpm.TPM {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "tpm2-00.permall"), state, 0o600))
		dev, err := swtpm.Start(t.Context(), dir)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, dev.Close()) })
		return dev
	}
	// run is Init in a world that crashes after a step, on a disk whose root is synced.
	run := func(t *testing.T, dev *swtpm.TPM, crashAt int, o keystore.Options) (*world, *Store, error) {
		w := &world{disk: vfs.NewCrashableMem()}
		require.NoError(t, worldFS{w}.MkdirAll("keystore"))
		require.NoError(t, syncRoot(w.disk))
		w.crashAt, w.after = crashAt, true
		dir, err := statedir.NewFS(worldFS{w}, "keystore")
		require.NoError(t, err)
		device := w.device(t, dev.URI())
		device.owner, device.endorsement = authorization(o.OwnerAuth.Reveal()), authorization(o.EndorsementAuth.Reveal())
		o.OperatorKey = &operator.PublicKey
		s, err := initialize(t.Context(), device, dir, 0, o)
		return w, s, err
	}
	whole, _, err := run(t, fresh(t), 0, keystore.NewOptions())
	require.NoError(t, err)
	const taking = 44 // steps at the end, more than the taking has
	asked := map[string]int{}
	for crashAt := whole.steps - taking; crashAt < whole.steps; crashAt++ {
		dev := fresh(t)
		w, _, err := run(t, dev, crashAt, keystore.NewOptions())
		require.Error(t, err)
		left, err := statedir.NewFS(worldFS{&world{disk: w.crash()}}, "keystore")
		require.NoError(t, err)
		auth, readErr := left.Read(HierarchiesFile)

		o, asks := keystore.NewOptions(), ""
		_, s, err := run(t, dev, 0, o)
		for range 2 {
			if err == nil {
				break
			}
			require.ErrorIs(t, err, keystore.ErrOwned, "after step %d", crashAt)
			require.NoError(t, readErr, "after step %d it is asked for", crashAt)
			secret := keystore.NewSecret([]byte(strings.TrimSpace(string(auth))))
			if strings.Contains(err.Error(), "its endorsement hierarchy") {
				o.EndorsementAuth, asks = secret, asks+" endorsement"
			} else {
				o.OwnerAuth, asks = secret, asks+" owner"
			}
			_, s, err = run(t, dev, 0, o)
		}
		require.NoError(t, err, "after step %d", crashAt)
		asked[asks]++
		require.NoError(t, s.operate(func(c *conn) error {
			set, err := permanent(c)
			require.EqualValues(t, permAll|permClearDenied, set&(permAll|permClearDenied), "after step %d", crashAt)
			return err
		}))
	}
	t.Logf("what the next Init was asked for: %v", asked)
	require.Len(t, asked, 3, "nothing, one of them, both")
}
