package kv

import (
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// TestFullDiskAtEachWrite: whichever write finds the disk full, the store says so; nobody hangs, and
// what the next process finds is a whole state or none.
func TestFullDiskAtEachWrite(t *testing.T) {
	for from := 0; ; from += 1 + from/8 {
		fs, content := vfs.NewMem(), make(keptContent)
		var mu sync.Mutex
		writes, over := 0, false
		full := errorfs.InjectorFunc(func(op errorfs.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpRemove && op.Kind != errorfs.OpRemoveAll {
				if writes++; writes > from && !over {
					return syscall.ENOSPC
				}
			}
			return nil
		})
		failure := func() error {
			s, err := Open("state", Options{FS: errorfs.Wrap(fs, full), Memory: 1})
			if err != nil {
				return err
			}
			defer s.Close()
			s.place.limit = 4 << 10
			g := &traffic{rng: rand.New(rand.NewPCG(3, 4)), keys: 60}
			for height := range bft.Height(8) {
				ops := g.block(t, 15)
				if err := s.Apply(height+1, 0, ops, bft.NewResults([]int{len(ops)})); err != nil {
					return err
				}
				if height%4 == 3 {
					if err := content.keepNow(t, s); err != nil {
						return err
					}
				}
			}
			return nil
		}()
		if failure != nil {
			require.ErrorIs(t, failure, syscall.ENOSPC, "after %d writes", from)
		}
		left := crashed(t, fs)
		mu.Lock()
		over = true // so that the database does not go on trying for ever
		mu.Unlock()
		s := onDisk(t, left, 4<<10)
		for root, want := range content {
			if s.Resume(root) {
				require.Equal(t, want, snapshotOf(t, s.State()), "after %d writes", from)
			}
		}
		require.NoError(t, s.Close())
		if failure == nil {
			require.Greater(t, from, 50)
			return
		}
	}
}

// Where a directory can be read and not written, whoever reads the error learns that, and is not told
// to remove anything.
func TestADirectoryThatCannotBeWrittenSaysWhy(t *testing.T) {
	for refusal, says := range map[error]string{
		syscall.EROFS:  "the file system is read-only: remount it",
		syscall.EACCES: "run as the user that owns the directory",
	} {
		for _, begun := range []bool{false, true} {
			mem := vfs.NewMem()
			if begun {
				s, err := Open("state", Options{FS: mem})
				require.NoError(t, err)
				require.NoError(t, s.Close())
			}
			_, err := Open("state", Options{FS: errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && (!begun || op.Kind != errorfs.OpMkdirAll) || strings.HasSuffix(op.Path, lockName) {
					return refusal
				}
				return nil
			}))})
			require.ErrorIs(t, err, refusal)
			require.ErrorContains(t, err, says)
			require.NotContains(t, err.Error(), "remove")
		}
	}
}
