package keystoretest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/stretchr/testify/require"
)

// Device is a device with a new keystore on it.
type Device struct {
	// Dir is the directory of the keystore.
	Dir string
	// Open opens the keystore that Dir, or a copy of it, belongs to.
	Open func(t *testing.T, dir string) keystore.Keystore
	// Late is set by a backend that does not yet open the next epoch's secret
	// before Advance, say what it holds, or bear a damaged record of the epoch.
	Late bool
}

// Run runs the suite. fresh makes a device with a new keystore in whose present
// state Unseal works; it is called once for each test.
func Run(t *testing.T, fresh func(t *testing.T) Device) {
	tests := []struct {
		name string
		test func(t *testing.T, d Device)
	}{
		{"identity signs", testIdentity},
		{"identity is the same when opened again", testReopen},
		{"seal, advance, unseal", testRound},
		{"a secret of any size", testSizes},
		{"sealing again replaces", testReplace},
		{"epochs are skipped", testSkip},
		{"epochs do not go back", testNoReturn},
		{"several epochs are pending", testPending},
		{"a copy of the disk is erased too", testBackup},
		{"a damaged file is refused", testDamage},
		{"an epoch ends without a successor", testLapse},
		{"two epochs open until the old one ends", testBothOpen},
		{"a file that is lost is a lost secret, no lost keystore", testLostFiles},
		{"a file of another keystore", testForeignFile},
		{"files that are put back", testPutBack},
		{"the record of the epoch is anybody's", testRecord},
		{"many at once", testConcurrent},
		{"sealing ahead while epochs pass", testSealAhead},
		{"status tells", testStatus},
		{"closed", testClosed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, fresh(t)) })
	}
}

// open opens a keystore for the duration of a test.
func (d Device) open(t *testing.T, dir string) keystore.Keystore {
	t.Helper()
	k := d.Open(t, dir)
	t.Cleanup(func() { require.NoError(t, k.Close()) })
	return k
}

func testIdentity(t *testing.T, d Device) {
	k := d.open(t, d.Dir)
	pub, ok := k.Identity().Public().(*ecdsa.PublicKey)
	require.True(t, ok, "the identity key is an *ecdsa.PublicKey")
	require.Equal(t, "P-256", pub.Curve.Params().Name)
	digest := sha256.Sum256([]byte("message"))
	sig, err := k.Identity().Sign(rand.Reader, digest[:], crypto.SHA256)
	require.NoError(t, err)
	require.True(t, ecdsa.VerifyASN1(pub, digest[:], sig))
	_, err = k.Identity().Sign(rand.Reader, digest[:20], crypto.SHA1)
	require.ErrorIs(t, err, keystore.ErrUnsupported)
	_, err = k.Identity().Sign(rand.Reader, digest[:20], crypto.SHA256)
	require.ErrorIs(t, err, keystore.ErrUnsupported)
}

func testReopen(t *testing.T, d Device) {
	first := d.Open(t, d.Dir)
	require.NoError(t, first.Seal(1, []byte("one")))
	require.NoError(t, first.Advance(1))
	require.NoError(t, first.Seal(2, []byte("two")))
	require.NoError(t, first.Close())
	second := d.open(t, d.Dir)
	require.Equal(t, first.Identity().Public(), second.Identity().Public())
	requireSecret(t, second, 1, "one")
	require.NoError(t, second.Advance(2))
	requireSecret(t, second, 2, "two")
}

func testRound(t *testing.T, d Device) {
	k := d.open(t, d.Dir)
	_, err := k.Unseal(0)
	require.ErrorIs(t, err, keystore.ErrNotFound)
	require.NoError(t, k.Seal(0, []byte("zero")))
	requireSecret(t, k, 0, "zero")
	require.NoError(t, k.Seal(1, []byte("one")))
	requireSecret(t, k, 0, "zero")
	if !d.Late {
		requireSecret(t, k, 1, "one") // before the old one has ended
		requireSecret(t, k, 0, "zero")
	}
	require.NoError(t, k.Advance(1))
	require.NoError(t, k.Advance(1), "idempotent")
	requireSecret(t, k, 1, "one")
	_, err = k.Unseal(0)
	require.ErrorIs(t, err, keystore.ErrErased)
	_, err = k.Unseal(2)
	require.ErrorIs(t, err, keystore.ErrNotFound)
}

func testSizes(t *testing.T, d Device) {
	k := d.open(t, d.Dir)
	for i, size := range []int{0, 1, 34, 128, 129, keystore.MaxSecret} {
		secret := bytes.Repeat([]byte{byte(i + 1)}, size)
		require.NoError(t, k.Seal(0, secret))
		got, err := k.Unseal(0)
		require.NoError(t, err)
		require.True(t, bytes.Equal(secret, got))
	}
	require.ErrorIs(t, k.Seal(0, make([]byte, keystore.MaxSecret+1)), keystore.ErrTooLarge)
}

func testReplace(t *testing.T, d Device) {
	k := d.open(t, d.Dir)
	require.NoError(t, k.Seal(1, []byte("draft")))
	require.NoError(t, k.Seal(1, []byte("one")))
	require.NoError(t, k.Advance(1))
	requireSecret(t, k, 1, "one")
	require.NoError(t, k.Seal(1, []byte("one, again")))
	requireSecret(t, k, 1, "one, again")
}

func testSkip(t *testing.T, d Device) {
	k := d.open(t, d.Dir)
	require.NoError(t, k.Seal(7, []byte("seven")))
	require.NoError(t, k.Advance(7))
	requireSecret(t, k, 7, "seven")
	require.NoError(t, k.Advance(1000), "with nothing sealed")
	_, err := k.Unseal(7)
	require.ErrorIs(t, err, keystore.ErrErased)
	_, err = k.Unseal(1000)
	require.ErrorIs(t, err, keystore.ErrNotFound)
}

func testNoReturn(t *testing.T, d Device) {
	k := d.open(t, d.Dir)
	require.NoError(t, k.Advance(5))
	require.ErrorIs(t, k.Advance(4), keystore.ErrErased)
	require.ErrorIs(t, k.Seal(4, []byte("four")), keystore.ErrErased)
	st, err := k.Status()
	require.NoError(t, err)
	require.EqualValues(t, 5, st.Epoch)
}

func testPending(t *testing.T, d Device) {
	k := d.open(t, d.Dir)
	for epoch := uint64(1); epoch <= 4; epoch++ {
		require.NoError(t, k.Seal(epoch, []byte{byte(epoch)}))
	}
	for _, epoch := range []uint64{1, 2, 4} {
		require.NoError(t, k.Advance(epoch))
		requireSecret(t, k, epoch, string([]byte{byte(epoch)}))
	}
	_, err := k.Unseal(3)
	require.ErrorIs(t, err, keystore.ErrErased)
}

func testBackup(t *testing.T, d Device) {
	k := d.open(t, d.Dir)
	require.NoError(t, k.Seal(1, []byte("one")))
	require.NoError(t, k.Advance(1))
	backup := copyDir(t, d.Dir)
	old := d.open(t, backup)
	requireSecret(t, old, 1, "one")

	require.NoError(t, k.Seal(2, []byte("two")))
	require.NoError(t, k.Advance(2))
	st, err := k.Status()
	require.NoError(t, err)
	if st.Kind == "file" {
		t.Log("a passphrase file cannot erase its copies, and says so: ", st.Cautions)
		require.NotEmpty(t, st.Cautions)
		return
	}
	_, err = old.Unseal(1)
	requireRefusedByDevice(t, err, 1)
	_, err = d.open(t, copyDir(t, backup)).Unseal(1)
	requireRefusedByDevice(t, err, 1)
	requireSecret(t, k, 2, "two")

	// Who restores a backup goes on from it.
	require.NoError(t, old.Seal(3, []byte("three")))
	require.NoError(t, old.Advance(3))
	requireSecret(t, old, 3, "three")
}

func requireRefusedByDevice(t *testing.T, err error, epoch uint64) {
	t.Helper()
	require.ErrorIs(t, err, keystore.ErrErased)
	var refused *keystore.RefusedError
	require.ErrorAs(t, err, &refused, "the device refuses, not the bookkeeping")
	require.Equal(t, epoch, refused.Epoch)
}

func testDamage(t *testing.T, d Device) {
	k := d.open(t, d.Dir)
	require.NoError(t, k.Seal(0, []byte("zero")))
	names, err := filepath.Glob(filepath.Join(d.Dir, "sealed-*"))
	require.NoError(t, err)
	require.Len(t, names, 1)
	whole, err := os.ReadFile(names[0])
	require.NoError(t, err)
	for _, at := range []int{0, 20, len(whole) / 2, len(whole) - 1} {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 1
		require.NoError(t, os.WriteFile(names[0], damaged, 0o600))
		_, err = k.Unseal(0)
		require.Error(t, err, "byte %d", at)
		require.NotContains(t, err.Error(), "zero")
	}
	require.NoError(t, os.WriteFile(names[0], whole[:len(whole)/2], 0o600))
	_, err = k.Unseal(0)
	require.Error(t, err)
	require.NoError(t, os.WriteFile(names[0], whole, 0o600))
	requireSecret(t, k, 0, "zero")

	// An envelope does not pass for that of another epoch.
	require.NoError(t, os.Rename(names[0], filepath.Join(d.Dir, "sealed-00000000000000000001")))
	_, err = k.Unseal(1)
	require.ErrorIs(t, err, keystore.ErrCorrupt)
}

func testConcurrent(t *testing.T, d Device) {
	k := d.open(t, d.Dir)
	require.NoError(t, k.Seal(0, []byte("zero")))
	pub := k.Identity().Public().(*ecdsa.PublicKey)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			digest := sha256.Sum256([]byte{byte(i)})
			for range 3 {
				sig, err := k.Identity().Sign(rand.Reader, digest[:], crypto.SHA256)
				if err != nil || !ecdsa.VerifyASN1(pub, digest[:], sig) {
					t.Errorf("sign: %v", err)
				}
				if secret, err := k.Unseal(0); err != nil || string(secret) != "zero" {
					t.Errorf("unseal: %v", err)
				}
				if err := k.Seal(uint64(i)+1, digest[:]); err != nil {
					t.Errorf("seal: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

// testSealAhead seals for a far epoch while others begin: what is sealed at any
// moment opens when its epoch comes.
func testSealAhead(t *testing.T, d Device) {
	const far = 100
	k := d.open(t, d.Dir)
	var wg sync.WaitGroup
	wg.Go(func() {
		for epoch := uint64(1); epoch <= 6; epoch++ {
			if err := k.Advance(epoch); err != nil {
				t.Errorf("advance: %v", err)
			}
		}
	})
	wg.Go(func() {
		for i := range byte(6) {
			if err := k.Seal(far, []byte{i}); err != nil {
				t.Errorf("seal: %v", err)
			}
		}
	})
	wg.Wait()
	require.NoError(t, k.Advance(far))
	requireSecret(t, k, far, string([]byte{5}))
}

func testStatus(t *testing.T, d Device) {
	k := d.open(t, d.Dir)
	st, err := k.Status()
	require.NoError(t, err)
	require.NotEmpty(t, st.Kind)
	require.NotEmpty(t, st.Device)
	require.NotEmpty(t, st.Capabilities)
	require.Equal(t, keystore.Fingerprint(k.Identity().Public()), st.Identity)
	require.Zero(t, st.Epoch)
}

func testClosed(t *testing.T, d Device) {
	k := d.Open(t, d.Dir)
	require.NoError(t, k.Seal(0, []byte("zero")))
	require.NoError(t, k.Close())
	require.NoError(t, k.Close(), "twice is once")
	_, err := k.Unseal(0)
	require.ErrorIs(t, err, keystore.ErrClosed)
	require.ErrorIs(t, k.Seal(0, nil), keystore.ErrClosed)
	require.ErrorIs(t, k.Advance(1), keystore.ErrClosed)
	_, err = k.Status()
	require.ErrorIs(t, err, keystore.ErrClosed)
	digest := sha256.Sum256(nil)
	_, err = k.Identity().Sign(rand.Reader, digest[:], crypto.SHA256)
	require.ErrorIs(t, err, keystore.ErrClosed)
}

func requireSecret(t *testing.T, k keystore.Keystore, epoch uint64, want string) {
	t.Helper()
	got, err := k.Unseal(epoch)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

// copyDir copies a directory as an intruder or a backup does.
func copyDir(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(to, os.DirFS(dir)))
	return to
}
