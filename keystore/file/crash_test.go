package file

import (
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
