package statedir_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/keystoretest"
	"github.com/reseal-bft/reseal/keystore/statedir"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// clearly wraps a key by not wrapping it.
func clearly(key []byte) ([]byte, error) { return bytes.Clone(key), nil }

func TestEnvelope(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.SliceOfN(rapid.Byte(), 0, keystore.MaxSecret).Draw(t, "secret")
		header := statedir.Sealed{Kind: statedir.KindFile, Epoch: rapid.Uint64().Draw(t, "epoch"), Binding: rapid.Uint64().Draw(t, "binding")}
		s, err := statedir.Seal(rand.Reader, header, secret, clearly)
		require.NoError(t, err)
		data, err := s.MarshalBinary()
		require.NoError(t, err)
		parsed, err := statedir.ParseSealed(data)
		require.NoError(t, err)
		got, err := parsed.Open(s.Wrapped)
		require.NoError(t, err)
		require.True(t, bytes.Equal(secret, got))

		// Nothing of it can be changed.
		data[rapid.IntRange(0, len(data)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if parsed, err = statedir.ParseSealed(data); err == nil {
			_, err = parsed.Open(s.Wrapped)
		}
		require.ErrorIs(t, err, keystore.ErrCorrupt)
	})
}

func TestEnvelopeLimits(t *testing.T) {
	header := statedir.Sealed{Kind: statedir.KindFile}
	_, err := statedir.Seal(rand.Reader, header, make([]byte, keystore.MaxSecret+1), clearly)
	require.ErrorIs(t, err, keystore.ErrTooLarge)
	_, err = statedir.Seal(rand.Reader, header, nil, func([]byte) ([]byte, error) { return make([]byte, statedir.MaxWrapped+1), nil })
	require.ErrorContains(t, err, "at most")
	_, err = statedir.Seal(bytes.NewReader(nil), header, nil, clearly)
	require.ErrorContains(t, err, "randomness")
	failure := errors.New("the device failed")
	_, err = statedir.Seal(rand.Reader, header, nil, func([]byte) ([]byte, error) { return nil, failure })
	require.ErrorIs(t, err, failure)
}

func TestDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d")
	d, err := statedir.New(path)
	require.NoError(t, err)
	_, err = statedir.New("")
	require.Error(t, err)
	require.NoError(t, d.Make())
	_, err = d.Read("none")
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = d.Sealed(statedir.KindFile, 1)
	require.ErrorIs(t, err, keystore.ErrNotFound)
	require.NoError(t, d.Write("name", []byte("one")))
	require.NoError(t, d.Write("name", []byte("two")))
	data, err := d.Read("name")
	require.NoError(t, err)
	require.Equal(t, "two", string(data))
	info, err := os.Stat(filepath.Join(path, "name"))
	require.NoError(t, err)
	require.Zero(t, info.Mode().Perm()&0o077, "for its owner only")
	require.NoError(t, d.Write("large", make([]byte, 65<<10)))
	_, err = d.Read("large")
	require.ErrorIs(t, err, keystore.ErrCorrupt)

	var v struct{ A int }
	require.NoError(t, d.Write("json", []byte(`{"A":1,"B":2}`)))
	require.ErrorIs(t, d.ReadJSON("json", &v), keystore.ErrCorrupt)
	require.NoError(t, d.Write("json", []byte(`{"A":1}{}`)))
	require.ErrorIs(t, d.ReadJSON("json", &v), keystore.ErrCorrupt)

	for epoch := range uint64(4) {
		s, err := statedir.Seal(rand.Reader, statedir.Sealed{Kind: statedir.KindFile, Epoch: epoch}, nil, clearly)
		require.NoError(t, err)
		require.NoError(t, d.PutSealed(s))
	}
	_, err = d.Sealed(statedir.KindTPM, 1)
	require.ErrorIs(t, err, keystore.ErrCorrupt, "of another kind of device")
	require.NoError(t, d.EraseBefore(2))
	epochs, err := d.Epochs()
	require.NoError(t, err)
	require.Equal(t, []uint64{2, 3}, epochs)
}

// What was removed is gone after a power cut; that somebody else removed one of them does not keep
// the others.
func TestRemoveIsOnDisk(t *testing.T) {
	w := keystoretest.NewWorld()
	d, err := statedir.NewFS(w.FS(), "k")
	require.NoError(t, err)
	require.NoError(t, d.Make())
	for _, name := range []string{"a", "b", "c"} {
		require.NoError(t, d.Write(name, []byte(name)))
	}
	require.NoError(t, d.Remove("a", "none", "b"))
	d, err = statedir.NewFS(w.Restart().FS(), "k")
	require.NoError(t, err)
	names, err := d.Names("")
	require.NoError(t, err)
	require.Equal(t, []string{"c"}, names)
}

// What a crash left half written is no file of the keystore; of past epochs it is erased, and what
// belongs to something else is not.
func TestWhatWasBeingWritten(t *testing.T) {
	path := t.TempDir()
	d, err := statedir.New(path)
	require.NoError(t, err)
	left := func() (names []string) {
		entries, err := os.ReadDir(path)
		require.NoError(t, err)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	const sealed = "sealed-00000000000000000007"
	for _, name := range []string{sealed, sealed + ".tmp", "epoch.json.tmp", "sealed-7", "sealed-x"} {
		require.NoError(t, os.WriteFile(filepath.Join(path, name), []byte("anything"), 0o600))
	}
	names, err := d.Names("sealed-")
	require.NoError(t, err)
	require.Equal(t, []string{sealed, "sealed-7", "sealed-x"}, names)
	epochs, err := d.Epochs()
	require.NoError(t, err)
	require.Equal(t, []uint64{7}, epochs, "other names are none of an epoch's")
	require.NoError(t, d.EraseBefore(7))
	require.Equal(t, []string{"epoch.json.tmp", sealed, "sealed-7", "sealed-x"}, left())
}

// What is erased was overwritten as a whole before its name went: another name of the file shows it.
func TestErasedIsOverwritten(t *testing.T) {
	path := t.TempDir()
	d, err := statedir.New(path)
	require.NoError(t, err)
	s, err := statedir.Seal(rand.Reader, statedir.Sealed{Kind: statedir.KindFile, Epoch: 1}, make([]byte, keystore.MaxSecret), clearly)
	require.NoError(t, err)
	require.NoError(t, d.PutSealed(s))
	kept := filepath.Join(t.TempDir(), "kept")
	require.NoError(t, os.Link(filepath.Join(path, "sealed-00000000000000000001"), kept))
	require.NoError(t, d.EraseAfter(0))
	content, err := os.ReadFile(kept)
	require.NoError(t, err)
	require.Greater(t, len(content), keystore.MaxSecret)
	require.Equal(t, make([]byte, len(content)), content)
}

// The record of the epoch counts as it was written, for the epoch that was proven, in this version.
func TestTheRecordOfTheEpoch(t *testing.T) {
	path := t.TempDir()
	d, err := statedir.New(path)
	require.NoError(t, err)
	holds := func(statement, proof []byte) bool { return bytes.Equal(statement, proof) }
	_, err = d.Epoch(holds)
	require.ErrorIs(t, err, keystore.ErrCorrupt, "it is not there")
	require.NoError(t, d.PutEpoch(7, func(statement []byte) ([]byte, error) { return statement, nil }))
	epoch, err := d.Epoch(holds)
	require.NoError(t, err)
	require.EqualValues(t, 7, epoch)
	record, err := d.Read("epoch.json")
	require.NoError(t, err)
	for from, to := range map[string]string{`"epoch": 7`: `"epoch": 8`, `"version": 2`: `"version": 1`} {
		require.Contains(t, string(record), from)
		require.NoError(t, d.Write("epoch.json", bytes.Replace(record, []byte(from), []byte(to), 1)))
		_, err = d.Epoch(holds)
		require.ErrorIs(t, err, keystore.ErrCorrupt, to)
	}
	for _, c := range []struct {
		named, found, settled uint64
		back, over            bool
	}{{7, 7, 7, false, false}, {8, 7, 7, false, false}, {6, 7, 6, true, false}, {6, 7, 0, true, false}, {6, 7, 7, false, true}, {5, 7, 6, false, true}} {
		back, err := statedir.GoesBack(c.named, c.found, c.settled)
		require.Equal(t, c.back, back, "%+v", c)
		require.Equal(t, c.over, errors.Is(err, keystore.ErrErased), "%+v", c)
	}
}

// Who fills the directory is looked at so far; envelopes of past epochs, and those that are too
// large, count for nothing.
func TestHeldHasABound(t *testing.T) {
	d, err := statedir.New(t.TempDir())
	require.NoError(t, err)
	for epoch := range uint64(40) {
		s, err := statedir.Seal(rand.Reader, statedir.Sealed{Kind: statedir.KindFile, Epoch: epoch}, nil, clearly)
		require.NoError(t, err)
		require.NoError(t, d.PutSealed(s))
	}
	tried := 0
	held, err := d.Held(5, func(epoch uint64) error {
		tried++
		if epoch == 6 {
			return errors.New("it does not open")
		}
		return nil
	})
	require.NoError(t, err)
	require.Len(t, held, 16)
	require.Equal(t, 16, tried)
	require.Equal(t, keystore.Held{Epoch: 5, Opens: true}, held[0])
	require.Equal(t, keystore.Held{Epoch: 6, Problem: "it does not open"}, held[1])

	for name, s := range map[string]statedir.Sealed{
		"wrapped":    {Wrapped: make([]byte, statedir.MaxWrapped+1)},
		"ciphertext": {Ciphertext: make([]byte, keystore.MaxSecret+17)},
	} {
		data, err := s.MarshalBinary()
		require.NoError(t, err)
		_, err = statedir.ParseSealed(data)
		require.ErrorIs(t, err, keystore.ErrCorrupt, name)
	}
	s := statedir.Sealed{Wrapped: make([]byte, statedir.MaxWrapped), Ciphertext: make([]byte, keystore.MaxSecret+16)}
	data, err := s.MarshalBinary()
	require.NoError(t, err)
	_, err = statedir.ParseSealed(data)
	require.NoError(t, err)

	moved, err := d.Read("sealed-00000000000000000003")
	require.NoError(t, err)
	require.NoError(t, d.Write("sealed-00000000000000000004", moved))
	_, err = d.Sealed(statedir.KindFile, 4)
	require.ErrorIs(t, err, keystore.ErrCorrupt, "another epoch's")
}

// TestWhatOpensAKeystoreIsMissing: none, one that has lost it, and one of another kind are told apart.
func TestWhatOpensAKeystoreIsMissing(t *testing.T) {
	d, err := statedir.New(filepath.Join(t.TempDir(), "d"))
	require.NoError(t, err)
	require.ErrorIs(t, d.Missing(statedir.KindFile, "name", "help"), keystore.ErrNoKeystore)
	require.NoError(t, d.Make())
	require.ErrorIs(t, d.Missing(statedir.KindFile, "name", "help"), keystore.ErrNoKeystore)
	sealed, err := statedir.Seal(rand.Reader, statedir.Sealed{Kind: statedir.KindFile, Epoch: 1}, []byte("secret"), clearly)
	require.NoError(t, err)
	require.NoError(t, d.PutSealed(sealed))
	err = d.Missing(statedir.KindFile, "name", "help")
	require.ErrorIs(t, err, keystore.ErrCorrupt)
	require.ErrorContains(t, err, "help")
	err = d.Missing(statedir.KindTPM, "name", "help")
	require.ErrorContains(t, err, "another kind")
	require.NotErrorIs(t, err, keystore.ErrNoKeystore)
}
