package keystoretest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
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
	// Reboot resets the machine, and brings it back into the state in which Unseal
	// works. Nil: the device knows no boots.
	Reboot func(t *testing.T)
}

// Run runs the suite. fresh makes a device with a new keystore in whose present
// state Unseal works; it is called once for each test.
func Run(t *testing.T, fresh func(t *testing.T) Device) {
	tests := []struct {
		name string
		test func(t *testing.T, d Device)
	}{
		{"identity signs", testIdentity},
		{"a boot is claimed once", testClaim},
		{"identity is the same when opened again", testReopen},
		{"seal, advance, unseal", testRound},
		{"a secret of any size", testSizes},
		{"sealing again replaces", testReplace},
		{"epochs are skipped", testSkip},
		{"epochs do not go back", testNoReturn},
		{"one later epoch is kept", testPending},
		{"a later epoch is replaced by another", testReplaced},
		{"an epoch with nothing sealed ends the others", testNothingSealed},
		{"a copy of the disk is erased too", testBackup},
		{"a damaged file is refused", testDamage},
		{"an epoch ends without a successor", testLapse},
		{"two epochs open until the old one ends", testBothOpen},
		{"a file that is lost is a lost secret, no lost keystore", testLostFiles},
		{"a file of another keystore", testForeignFile},
		{"files that are put back", testPutBack},
		{"the record of the epoch is anybody's", testRecord},
		{"a later epoch that is found on disk decides nothing", testLaterEpoch},
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
	require.NoError(t, k.Claim())
	requireSigns(t, k)
	digest := sha256.Sum256([]byte("message"))
	_, err := k.Identity().Sign(rand.Reader, digest[:20], crypto.SHA1)
	require.ErrorIs(t, err, keystore.ErrUnsupported)
	_, err = k.Identity().Sign(rand.Reader, digest[:20], crypto.SHA256)
	require.ErrorIs(t, err, keystore.ErrUnsupported)
}

// requireSigns checks that the identity key signs.
func requireSigns(t *testing.T, k keystore.Keystore) {
	t.Helper()
	digest := sha256.Sum256([]byte("message"))
	sig, err := k.Identity().Sign(rand.Reader, digest[:], crypto.SHA256)
	require.NoError(t, err)
	require.True(t, ecdsa.VerifyASN1(k.Identity().Public().(*ecdsa.PublicKey), digest[:], sig))
}

// testClaim: after Claim, what has to do with the next epochs works. On a device that
// knows boots nobody opens anything any more in this one, and nobody else signs.
func testClaim(t *testing.T, d Device) {
	k := d.open(t, d.Dir)
	require.NoError(t, k.Seal(0, []byte("zero")))
	require.NoError(t, k.Seal(1, []byte("one")))
	copied := copyDir(t, d.Dir)
	requireSecret(t, k, 0, "zero")
	requireSecret(t, k, 1, "one")
	require.NoError(t, k.Claim())
	require.NoError(t, k.Claim(), "twice is once")
	requireSigns(t, k)
	if d.Reboot != nil {
		requireClaimed(t, k)
		for _, dir := range []string{d.Dir, copied} {
			other := d.open(t, dir)
			requireClaimed(t, other)
			require.ErrorIs(t, other.Claim(), keystore.ErrClaimed)
			digest := sha256.Sum256(nil)
			_, err := other.Identity().Sign(rand.Reader, digest[:], crypto.SHA256)
			require.ErrorIs(t, err, keystore.ErrUnclaimed)
		}
	}
	require.NoError(t, k.Seal(1, []byte("one, again")))
	require.NoError(t, k.Advance(1))
	require.NoError(t, k.Seal(2, []byte("two")))
	requireSigns(t, k)
	if d.Reboot != nil {
		d.Reboot(t)
		digest := sha256.Sum256(nil)
		_, err := k.Identity().Sign(rand.Reader, digest[:], crypto.SHA256)
		require.ErrorIs(t, err, keystore.ErrUnclaimed, "what held the boot before is worth nothing")
	}
	k = d.open(t, d.Dir)
	requireSecret(t, k, 1, "one, again")
	requireSecret(t, k, 2, "two")
	_, err := k.Unseal(0)
	require.ErrorIs(t, err, keystore.ErrErased)
	require.NoError(t, k.Claim())
	requireSigns(t, k)
}

// requireClaimed checks that the device refuses to open a secret in a claimed boot.
func requireClaimed(t *testing.T, k keystore.Keystore) {
	t.Helper()
	_, err := k.Unseal(0)
	require.ErrorIs(t, err, keystore.ErrClaimed)
	var refused *keystore.RefusedError
	require.ErrorAs(t, err, &refused, "the device refuses, not the bookkeeping")
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
	requireSecret(t, k, 1, "one")
	requireSecret(t, k, 0, "zero")
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

// testPending: beside the current secret there is one for a later epoch, the
// last that was sealed.
func testPending(t *testing.T, d Device) {
	k := d.open(t, d.Dir)
	require.NoError(t, k.Seal(0, []byte("zero")))
	for epoch := uint64(1); epoch <= 4; epoch++ {
		require.NoError(t, k.Seal(epoch, []byte{byte(epoch)}))
		copied := d.open(t, copyDir(t, d.Dir))
		requireSecret(t, copied, epoch, string([]byte{byte(epoch)}))
		requireSecret(t, copied, 0, "zero")
	}
	_, err := k.Unseal(3)
	require.ErrorIs(t, err, keystore.ErrNotFound)
	backup := copyDir(t, d.Dir)
	require.NoError(t, k.Advance(2), "to another epoch than the one that was sealed for")
	if !d.erases(t, k) {
		return
	}
	_, err = d.open(t, backup).Unseal(0)
	requireRefusedByDevice(t, err, 0)
}

// testReplaced: what was sealed for a later epoch, and then for another one,
// ends with the Advance to the latter, also on copies.
func testReplaced(t *testing.T, d Device) {
	k := d.open(t, d.Dir)
	require.NoError(t, k.Seal(1, []byte("one")))
	backup := copyDir(t, d.Dir)
	require.NoError(t, k.Seal(2, []byte("two")))
	require.NoError(t, k.Advance(2))
	requireSecret(t, k, 2, "two")
	_, err := k.Unseal(1)
	require.ErrorIs(t, err, keystore.ErrErased)
	if d.erases(t, k) {
		_, err = d.open(t, backup).Unseal(1)
		requireRefusedByDevice(t, err, 1)
	}
}

// testNothingSealed: an epoch for which nothing was sealed ends what was before.
func testNothingSealed(t *testing.T, d Device) {
	k := d.open(t, d.Dir)
	require.NoError(t, k.Seal(0, []byte("zero")))
	require.NoError(t, k.Seal(1, []byte("one")))
	backup := copyDir(t, d.Dir)
	require.NoError(t, k.Advance(5))
	for _, epoch := range []uint64{0, 1} {
		_, err := k.Unseal(epoch)
		require.ErrorIs(t, err, keystore.ErrErased)
		if d.erases(t, k) {
			_, err = d.open(t, backup).Unseal(epoch)
			requireRefusedByDevice(t, err, epoch)
		}
	}
	require.NoError(t, k.Seal(5, []byte("five")))
	requireSecret(t, k, 5, "five")
	require.NoError(t, k.Advance(5))
	requireSecret(t, k, 5, "five")
}

// erases reports whether the device refuses copies of the past.
func (d Device) erases(t *testing.T, k keystore.Keystore) bool {
	t.Helper()
	st, err := k.Status()
	require.NoError(t, err)
	if st.Kind == "file" {
		require.NotEmpty(t, st.Cautions, "a passphrase file cannot erase its copies, and says so")
	}
	return st.Kind != "file"
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
	if !d.erases(t, k) {
		return
	}
	_, err := old.Unseal(1)
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
	at := func(what func(i int) error) {
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				for range 3 {
					if err := what(i); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	at(func(i int) error {
		if secret, err := k.Unseal(0); err != nil || string(secret) != "zero" {
			return fmt.Errorf("unseal: %w", err)
		}
		return k.Seal(1, []byte{byte(i)})
	})
	at(func(int) error { return k.Claim() })
	pub := k.Identity().Public().(*ecdsa.PublicKey)
	at(func(i int) error {
		digest := sha256.Sum256([]byte{byte(i)})
		sig, err := k.Identity().Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil || !ecdsa.VerifyASN1(pub, digest[:], sig) {
			return fmt.Errorf("sign: %w", err)
		}
		return k.Seal(1, digest[:])
	})
}

// testSealAhead seals for the epoch that begins at any moment: the last secret
// opens when it has.
func testSealAhead(t *testing.T, d Device) {
	k := d.open(t, d.Dir)
	const epochs = 6
	var wg sync.WaitGroup
	wg.Go(func() {
		for epoch := uint64(1); epoch < epochs; epoch++ {
			if err := k.Advance(epoch); err != nil {
				t.Errorf("advance: %v", err)
			}
		}
	})
	wg.Go(func() {
		for i := range byte(epochs) {
			if err := k.Seal(epochs, []byte{i}); err != nil {
				t.Errorf("seal: %v", err)
			}
		}
	})
	wg.Wait()
	require.NoError(t, k.Seal(epochs, []byte("last")))
	require.NoError(t, k.Advance(epochs))
	requireSecret(t, k, epochs, "last")
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
