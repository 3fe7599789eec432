package replica_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/store"
)

// storeDir is the directory of a replica's store; its mark lies beside it.
func (c *cluster) storeDir(i int) string { return filepath.Join(c.dir, fmt.Sprint(i+1)) }

// newestLog returns the newest log file of a store's database.
func newestLog(t *testing.T, dir string) string {
	files, err := filepath.Glob(filepath.Join(dir, "db", "*.log"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	return slices.Max(files) // their numbers have the same length
}

// A replica whose disk forgets votes, whatever the way, does not vote before the next epoch, says
// so, and follows all the same; the others go on.
func TestADiskThatForgetsIsNoticed(t *testing.T) {
	for _, disk := range []struct {
		name string
		// harmless: it may vote when, having caught up, all that it has forgotten lies below what
		// is final. (The mark is stricter: it is up to a second old.)
		harmless bool
		forget   func(t *testing.T, dir, earlier string)
	}{
		{"put back", false, func(t *testing.T, dir, earlier string) {
			require.NoError(t, os.RemoveAll(dir))
			require.NoError(t, os.CopyFS(dir, os.DirFS(earlier)))
		}},
		{"put back, the mark removed", true, func(t *testing.T, dir, earlier string) {
			require.NoError(t, os.RemoveAll(dir))
			require.NoError(t, os.CopyFS(dir, os.DirFS(earlier)))
			require.NoError(t, os.Remove(dir+".mark"))
		}},
		{"moved away", false, func(t *testing.T, dir, _ string) { require.NoError(t, os.Rename(dir, dir+".old")) }},
		{"log files deleted", false, func(t *testing.T, dir, _ string) {
			files, err := filepath.Glob(filepath.Join(dir, "db", "*.log"))
			require.NoError(t, err)
			for _, file := range files {
				require.NoError(t, os.Remove(file))
			}
		}},
		{"a bit flipped in the newest log file", false, func(t *testing.T, dir, _ string) {
			file := newestLog(t, dir)
			raw, err := os.ReadFile(file)
			require.NoError(t, err)
			raw[len(raw)/2] ^= 4
			require.NoError(t, os.WriteFile(file, raw, 0o600))
		}},
		{"the newest log file cut", false, func(t *testing.T, dir, _ string) {
			file := newestLog(t, dir)
			info, err := os.Stat(file)
			require.NoError(t, err)
			require.NoError(t, os.Truncate(file, info.Size()/2))
		}},
	} {
		t.Run(disk.name, func(t *testing.T) {
			c := newCluster(t, bft.Size{F: 1})
			for i := range c.nodes {
				c.start(i)
			}
			client := newClient(t)
			sequence := uint64(0)
			write := func(through, n int) {
				for range n {
					sequence++
					c.put(through, client, sequence, "count", fmt.Sprint(sequence))
				}
			}
			write(0, 3)
			c.await(3, c.nodes[0].replica.Status().Height)
			c.stop(3)
			earlier := t.TempDir()
			require.NoError(t, os.CopyFS(earlier, os.DirFS(c.storeDir(3))))
			c.start(3)
			require.False(t, c.nodes[3].replica.Status().Amnesia, "an ordinary restart")
			write(0, 20)
			c.await(3, c.nodes[0].replica.Status().Height)
			c.stop(3)

			disk.forget(t, c.storeDir(3), earlier)
			for range 2 {
				if refused := c.tryOpen(3); refused != nil {
					require.ErrorIs(t, refused, store.ErrCorrupt)
					require.ErrorContains(t, refused, "move the directory away")
					return
				}
				c.start(3)
				write(1, 3)
				height := c.nodes[0].replica.Status().Height
				c.await(3, height)
				require.Eventually(t, func() bool { return c.nodes[3].replica.Status().View > 0 }, deadline, tick)
				status := c.nodes[3].replica.Status()
				if disk.harmless && !status.Amnesia {
					return
				}
				require.True(t, status.Amnesia)
				require.NotEmpty(t, status.AmnesiaReason)
				require.False(t, status.Voter)
				write(3, 1)
				c.stop(3) // and again
			}
		})
	}
}

// tryOpen opens a replica's store as its start would, and closes it.
func (c *cluster) tryOpen(i int) error {
	s, err := store.Open(c.storeDir(i), c.id, store.Options{})
	if err != nil {
		return err
	}
	return s.Close()
}

const (
	deadline = 20 * time.Second
	tick     = 5 * time.Millisecond
)
