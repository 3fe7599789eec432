package file

import (
	"errors"
	"slices"
	"testing"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/keystoretest"
	"github.com/reseal-bft/reseal/keystore/statedir"
	"github.com/stretchr/testify/require"
)

// on opens a keystore in a world, or makes one.
func on(t *testing.T, w *keystoretest.World, do func(*statedir.Dir, keystore.Options) (*Store, error)) *Store {
	t.Helper()
	dir, err := statedir.NewFS(w.FS(), "k")
	require.NoError(t, err)
	s, err := do(dir, keystore.NewOptions(keystore.WithWorkFactor(minWorkFactor), keystore.WithPassphrase(keystore.NewSecret([]byte("correct")))))
	require.NoError(t, err)
	return s
}

func opened(t *testing.T, s *Store, epoch uint64) string {
	t.Helper()
	secret, err := s.Unseal(epoch)
	require.NoError(t, err)
	return string(secret)
}

// TestCrashAtEveryStep stops Seal and Advance before every write to the disk, which then holds what
// was synced. The old secret opens or the new one; from the new epoch on, the old one is not in the
// directory once the keystore is open.
func TestCrashAtEveryStep(t *testing.T) {
	for name, tt := range map[string]struct {
		run func(s *Store) error
		to  uint64 // the epoch afterwards
	}{
		"seal again":            {func(s *Store) error { return s.Seal(2, []byte("new")) }, 1},
		"seal for a later one":  {func(s *Store) error { return s.Seal(3, []byte("new")) }, 1},
		"advance":               {func(s *Store) error { return s.Advance(2) }, 2},
		"advance, nothing seal": {func(s *Store) error { return s.Advance(3) }, 3},
	} {
		saw := make(map[uint64]bool)
		for n := 1; ; n++ {
			w := keystoretest.NewWorld()
			s := on(t, w, initialize)
			require.NoError(t, s.Seal(1, []byte("one")))
			require.NoError(t, s.Advance(1))
			require.NoError(t, s.Seal(2, []byte("draft")))
			w.CrashAt(n)
			err := tt.run(s)
			crashed := w.Crashed()
			require.Equal(t, crashed, err != nil, "%s, step %d: %v", name, n, err)
			s = on(t, w.Restart(), open)
			st, err := s.Status()
			require.NoError(t, err)
			saw[st.Epoch] = true
			for _, h := range st.Held {
				require.True(t, h.Opens, "%s, step %d: %v", name, n, h)
			}
			epochs, err := s.dir.Epochs()
			require.NoError(t, err)
			switch st.Epoch {
			case 1:
				require.Equal(t, "one", opened(t, s, 1))
				require.Greater(t, len(epochs), 1, "one of those sealed ahead is there")
			case tt.to:
				require.NotContains(t, epochs, uint64(1), "%s, step %d", name, n)
			}
			require.NoError(t, tt.run(s))
			if tt.to == 1 {
				require.Equal(t, "one", opened(t, s, 1))
			}
			if !crashed {
				break
			}
		}
		require.True(t, saw[tt.to], name)
		require.True(t, saw[1], name)
	}
}

// TestCrashInInit stops the making of a keystore before every write to the disk: afterwards there is
// a whole one, or none, and then one can be made.
func TestCrashInInit(t *testing.T) {
	o := keystore.NewOptions(keystore.WithWorkFactor(minWorkFactor), keystore.WithPassphrase(keystore.NewSecret([]byte("correct"))))
	began := 0
	for n := 1; ; n++ {
		w := keystoretest.NewWorld()
		dir, err := statedir.NewFS(w.FS(), "k")
		require.NoError(t, err)
		w.CrashAt(n)
		_, err = initialize(dir, o)
		crashed := w.Crashed()
		require.Equal(t, crashed, err != nil, "step %d: %v", n, err)
		w = w.Restart()
		dir, err = statedir.NewFS(w.FS(), "k")
		require.NoError(t, err)
		names, err := dir.Names("")
		if err == nil && slices.Contains(names, containerFile) {
			require.Subset(t, names, []string{identityFile, "epoch.json"}, "step %d: what opens is whole", n)
		}
		s, err := open(dir, o)
		if errors.Is(err, keystore.ErrNoKeystore) {
			began++
			s, err = initialize(dir, o)
		}
		require.NoError(t, err, "step %d", n)
		require.NoError(t, s.Seal(1, []byte("one")))
		require.Equal(t, "one", opened(t, s, 1))
		if !crashed {
			break
		}
	}
	require.Greater(t, began, 5, "most steps come before there is a keystore")
}

// TestWithoutARecord: when the record of the current epoch is gone, the oldest secret that opens is
// the current one. What does not open, whatever its name says, is none; what opens is not erased.
func TestWithoutARecord(t *testing.T) {
	w := keystoretest.NewWorld()
	s := on(t, w, initialize)
	require.NoError(t, s.Seal(3, []byte("three")))
	require.NoError(t, s.Advance(3))
	require.NoError(t, s.Seal(4, []byte("four")))
	planted, err := s.dir.Sealed(statedir.KindFile, 4)
	require.NoError(t, err)
	for _, epoch := range []uint64{2, 9} {
		planted.Epoch = epoch
		require.NoError(t, s.dir.PutSealed(planted))
	}
	require.NoError(t, s.dir.Remove("epoch.json"))
	s = on(t, w.Restart(), open)
	st, err := s.Status()
	require.NoError(t, err)
	require.EqualValues(t, 3, st.Epoch)
	require.Equal(t, "three", opened(t, s, 3))
	require.Equal(t, "four", opened(t, s, 4))
	epochs, err := s.dir.Epochs()
	require.NoError(t, err)
	require.Equal(t, []uint64{3, 4, 9}, epochs)
}

// TestCrashWhenAForgedEpochIsLeft: the group names an earlier epoch than the directory, which was
// tampered with. At whatever step the process stops, once it is through, what was planted is gone.
func TestCrashWhenAForgedEpochIsLeft(t *testing.T) {
	for n := 1; ; n++ {
		w := keystoretest.NewWorld()
		s := on(t, w, initialize)
		require.NoError(t, s.Seal(9, []byte("planted")))
		require.NoError(t, s.Advance(9))
		w = w.Restart()
		s = on(t, w, open)
		w.CrashAt(n)
		err := s.Advance(2)
		crashed := w.Crashed()
		require.Equal(t, crashed, err != nil)
		s = on(t, w.Restart(), open)
		require.NoError(t, s.Advance(2), "step %d", n)
		epochs, err := s.dir.Epochs()
		require.NoError(t, err)
		require.Empty(t, epochs, "step %d", n)
		if !crashed {
			require.Greater(t, n, 4, "there are steps to stop at")
			break
		}
	}
}

// TestWhatIsErasedStaysErased: when Advance has returned, a copy of the disk has nothing of what is
// over, whenever the power goes.
func TestWhatIsErasedStaysErased(t *testing.T) {
	w := keystoretest.NewWorld()
	s := on(t, w, initialize)
	require.NoError(t, s.Seal(1, []byte("one")))
	require.NoError(t, s.Advance(1))
	require.NoError(t, s.Seal(2, []byte("two")))
	require.NoError(t, s.Advance(2))
	dir, err := statedir.NewFS(w.Copy().FS(), "k")
	require.NoError(t, err)
	epochs, err := dir.Epochs()
	require.NoError(t, err)
	require.Equal(t, []uint64{2}, epochs)
}
