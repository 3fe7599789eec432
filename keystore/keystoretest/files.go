package keystoretest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
	"github.com/stretchr/testify/require"
)

// The tests of this file treat the directory of a keystore as that of somebody
// who can write it: they change, exchange and put back its files.

// record is where every backend says which epoch is current.
const record = "epoch.json"

func sealedFile(t *testing.T, dir, epoch string) (path string, content []byte) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "sealed-*"+epoch))
	require.NoError(t, err)
	require.Len(t, names, 1)
	content, err = os.ReadFile(names[0])
	require.NoError(t, err)
	return names[0], content
}

// testLapse ends an epoch for which there is no successor: the replica got no share of the next one.
func testLapse(t *testing.T, d Device) {
	k := d.open(t, d.Dir)
	require.NoError(t, k.Seal(1, []byte("one")))
	require.NoError(t, k.Advance(1))
	copied := copyDir(t, d.Dir)
	require.NoError(t, k.Advance(2))
	_, err := k.Unseal(1)
	require.ErrorIs(t, err, keystore.ErrErased)
	_, err = k.Unseal(2)
	require.ErrorIs(t, err, keystore.ErrNotFound)
	st, err := k.Status()
	require.NoError(t, err)
	require.EqualValues(t, 2, st.Epoch)
	require.Empty(t, st.Held)
	names, err := filepath.Glob(filepath.Join(d.Dir, "sealed-*"))
	require.NoError(t, err)
	require.Empty(t, names)
	if st.Kind != "file" {
		_, err = d.open(t, copied).Unseal(1)
		requireRefusedByDevice(t, err, 1)
	}
	require.NoError(t, k.Seal(3, []byte("three")))
	require.NoError(t, k.Advance(3))
	requireSecret(t, k, 3, "three")
}

// testBothOpen keeps an epoch's secret until the next epoch has shown that it can sign: in between
// both open, in any process, and what is sealed again for either replaces only that.
func testBothOpen(t *testing.T, d Device) {
	k := d.Open(t, d.Dir)
	require.NoError(t, k.Seal(1, []byte("one")))
	require.NoError(t, k.Advance(1))
	require.NoError(t, k.Seal(2, []byte("two")))
	requireSecret(t, k, 1, "one")
	requireSecret(t, k, 2, "two")
	require.NoError(t, k.Close())

	k = d.open(t, d.Dir)
	requireSecret(t, k, 1, "one")
	requireSecret(t, k, 2, "two")
	require.NoError(t, k.Seal(1, []byte("one, again")))
	require.NoError(t, k.Seal(2, []byte("two, again")))
	requireSecret(t, k, 1, "one, again")
	requireSecret(t, k, 2, "two, again")
	st, err := k.Status()
	require.NoError(t, err)
	require.EqualValues(t, 1, st.Epoch)
	require.Equal(t, []keystore.Held{{Epoch: 1, Opens: true}, {Epoch: 2, Opens: true}}, st.Held)
	require.NoError(t, k.Advance(2))
	_, err = k.Unseal(1)
	require.ErrorIs(t, err, keystore.ErrErased)
	requireSecret(t, k, 2, "two, again")
}

// testLostFiles damages the sealed file in every way: the secret is lost, the keystore opens, says
// so, and goes on.
func testLostFiles(t *testing.T, d Device) {
	k := d.open(t, d.Dir)
	require.NoError(t, k.Seal(0, []byte("zero")))
	path, whole := sealedFile(t, d.Dir, "0")
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	require.NoError(t, os.WriteFile(elsewhere, whole, 0o600))
	put := func(content []byte) func() error {
		return func() error { return os.WriteFile(path, content, 0o600) }
	}
	for name, damage := range map[string]func() error{
		"of length zero": put(nil),
		"one byte":       put(whole[:1]),
		"cut short":      put(whole[:len(whole)-1]),
		"with a tail":    put(append(bytes.Clone(whole), 0)),
		"huge":           put(make([]byte, 1<<20)),
		"zeros":          put(make([]byte, len(whole))),
		"a link":         func() error { return os.Symlink(elsewhere, path) },
		"not there":      func() error { return nil },
	} {
		require.NoError(t, os.Remove(path))
		require.NoError(t, damage(), name)
		again := d.Open(t, d.Dir)
		_, err := again.Unseal(0)
		require.True(t, keystore.Lost(err), "%s: %v", name, err)
		require.NotContains(t, err.Error(), "zero\"")
		st, err := again.Status()
		require.NoError(t, err, name)
		if name != "not there" {
			require.Len(t, st.Held, 1, name)
			require.False(t, st.Held[0].Opens, name)
			require.NotEmpty(t, st.Held[0].Problem, name)
		}
		require.NoError(t, again.Seal(0, []byte("a new one")), name)
		requireSecret(t, again, 0, "a new one")
		require.NoError(t, again.Close())
	}
}

// testForeignFile gives the keystore envelopes that it did not make, although everything in them is
// taken from one that it did.
func testForeignFile(t *testing.T, d Device) {
	k := d.open(t, d.Dir)
	require.NoError(t, k.Seal(0, []byte("zero")))
	require.NoError(t, k.Seal(1, []byte("one")))
	path, whole := sealedFile(t, d.Dir, "0")
	next, other := sealedFile(t, d.Dir, "1")
	for name, forge := range map[string]func(own, of *statedir.Sealed){
		"of another epoch, relabelled": func(s, of *statedir.Sealed) { *s = *of; s.Epoch = 0 },
		"the key of another epoch":     func(s, of *statedir.Sealed) { s.Wrapped = of.Wrapped },
		"the secret of another epoch":  func(s, of *statedir.Sealed) { s.Ciphertext = of.Ciphertext },
		"another binding":              func(s, _ *statedir.Sealed) { s.Binding++ },
		"no wrapped key":               func(s, _ *statedir.Sealed) { s.Wrapped = nil },
		"no secret":                    func(s, _ *statedir.Sealed) { s.Ciphertext = nil },
		"another kind":                 func(s, _ *statedir.Sealed) { s.Kind++ },
	} {
		s, err := statedir.ParseSealed(whole)
		require.NoError(t, err)
		of, err := statedir.ParseSealed(other)
		require.NoError(t, err)
		forge(s, of)
		data, err := s.MarshalBinary()
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		_, err = k.Unseal(0)
		require.True(t, keystore.Lost(err), "%s: %v", name, err)
	}
	require.NoError(t, os.WriteFile(path, other, 0o600))
	require.NoError(t, os.WriteFile(next, whole, 0o600))
	for epoch := range uint64(2) {
		_, err := k.Unseal(epoch)
		require.True(t, keystore.Lost(err), "exchanged: %v", err)
	}
}

// testPutBack puts the whole directory back in place, as of an epoch that is over, with the
// keystore closed.
func testPutBack(t *testing.T, d Device) {
	k := d.Open(t, d.Dir)
	require.NoError(t, k.Seal(1, []byte("one")))
	require.NoError(t, k.Advance(1))
	copied := copyDir(t, d.Dir)
	require.NoError(t, k.Seal(2, []byte("two")))
	require.NoError(t, k.Advance(2))
	require.NoError(t, k.Close())
	require.NoError(t, os.RemoveAll(d.Dir))
	require.NoError(t, os.CopyFS(d.Dir, os.DirFS(copied)))

	k = d.open(t, d.Dir)
	if st, err := k.Status(); st.Kind != "file" {
		require.NoError(t, err)
		for _, h := range st.Held {
			require.False(t, h.Opens)
		}
		_, err = k.Unseal(1)
		requireRefusedByDevice(t, err, 1)
	}
	require.NoError(t, k.Seal(3, []byte("three")))
	require.NoError(t, k.Advance(3))
	requireSecret(t, k, 3, "three")
}

// testLaterEpoch finds an epoch on disk that the group never was in: by a file that anybody can
// write, and by the keystore itself in the hands of somebody who had the device for a while. It is
// the caller's word that counts.
func testLaterEpoch(t *testing.T, d Device) {
	const absurd = 1 << 62
	k := d.Open(t, d.Dir)
	require.NoError(t, k.Seal(1, []byte("one")))
	require.NoError(t, k.Advance(1))
	path, whole := sealedFile(t, d.Dir, "1")
	require.NoError(t, k.Close())
	goesOn := func(epoch uint64) {
		t.Helper()
		k := d.Open(t, d.Dir)
		require.NoError(t, k.Seal(epoch, []byte("the next share")))
		requireSecret(t, k, epoch, "the next share")
		require.NoError(t, k.Advance(epoch))
		requireSecret(t, k, epoch, "the next share")
		require.ErrorIs(t, k.Advance(epoch-1), keystore.ErrErased, "in a process it never goes back")
		st, err := k.Status()
		require.NoError(t, err)
		require.EqualValues(t, epoch, st.Epoch)
		require.NoError(t, k.Close())
		requireSecret(t, d.open(t, d.Dir), epoch, "the next share")
	}
	forged, err := statedir.ParseSealed(whole)
	require.NoError(t, err)
	forged.Epoch = absurd
	data, err := forged.MarshalBinary()
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Remove(filepath.Join(d.Dir, record)))
	require.NoError(t, os.WriteFile(strings.Replace(path, fmt.Sprintf("%020d", 1), fmt.Sprintf("%020d", uint64(absurd)), 1), data, 0o600))
	goesOn(2)

	k = d.Open(t, d.Dir)
	require.NoError(t, k.Seal(absurd, []byte("planted")))
	require.NoError(t, k.Close())
	goesOn(3)
	k = d.Open(t, d.Dir)
	require.NoError(t, k.Seal(absurd, []byte("planted")))
	require.NoError(t, k.Advance(absurd))
	require.NoError(t, k.Seal(absurd+1, []byte("planted")))
	require.NoError(t, k.Close())
	goesOn(4)
	k = d.open(t, d.Dir)
	for _, epoch := range []uint64{absurd, absurd + 1} {
		_, err := k.Unseal(epoch)
		require.ErrorIs(t, err, keystore.ErrNotFound, "what was planted is gone")
	}
}

// testRecord changes the record of the current epoch: nothing that is over comes back, nothing that
// lasts is erased, and the keystore opens.
func testRecord(t *testing.T, d Device) {
	k := d.Open(t, d.Dir)
	require.NoError(t, k.Seal(1, []byte("one")))
	require.NoError(t, k.Advance(1))
	before, err := os.ReadFile(filepath.Join(d.Dir, record))
	require.NoError(t, err)
	require.NoError(t, k.Seal(2, []byte("two")))
	require.NoError(t, k.Advance(2))
	require.NoError(t, k.Seal(3, []byte("three")))
	require.NoError(t, k.Close())
	path := filepath.Join(d.Dir, record)
	now, err := os.ReadFile(path)
	require.NoError(t, err)
	number := regexp.MustCompile(`"epoch": \d+`)
	for name, content := range map[string][]byte{
		"of length zero": {},
		"cut short":      now[:len(now)/2],
		"no proof":       []byte(`{"version": 2, "epoch": 3}`),
		"raised":         number.ReplaceAll(now, []byte(`"epoch": 3`)),
		"raised to the most": number.ReplaceAll(now,
			[]byte(`"epoch": 18446744073709551615`)),
		"lowered":   number.ReplaceAll(now, []byte(`"epoch": 0`)),
		"put back":  before,
		"huge":      make([]byte, 1<<20),
		"not there": nil,
	} {
		require.NoError(t, os.Remove(path))
		if content != nil {
			require.NoError(t, os.WriteFile(path, content, 0o600))
		}
		k := d.Open(t, d.Dir)
		_, err := k.Unseal(1)
		require.True(t, keystore.Lost(err), "%s: %v", name, err)
		requireSecret(t, k, 2, "two")
		requireSecret(t, k, 3, "three")
		require.NoError(t, k.Advance(2), name)
		st, err := k.Status()
		require.NoError(t, err)
		require.EqualValues(t, 2, st.Epoch, name)
		require.NoError(t, k.Close())
	}
}
