package replica

import (
	"io"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/kv"
)

// restorations counts how often the built-in store is restored from a snapshot.
type restorations struct {
	*kv.Store
	n int
}

func (r *restorations) Restore(snapshot io.Reader) error {
	r.n++
	return r.Store.Restore(snapshot)
}

// keeping is a world and the disk of a replica that has written a snapshot.
func keeping(t *testing.T) (*world, func() (*Replica, *restorations), vfs.FS) {
	w, fs := newWorld(t, bft.Size{F: 1}, 1), vfs.NewMem()
	for range 3 {
		w.order(1)
	}
	for range 77 {
		w.order(0)
	}
	disk := w.store()
	start := func() (*Replica, *restorations) {
		state, err := kv.Open("state", kv.Options{FS: fs})
		require.NoError(t, err)
		app := &restorations{Store: state}
		r, err := w.replicaOf(app, disk, &peers{})
		require.NoError(t, err)
		return r, app
	}
	r, app := start()
	for range w.blocks { // one at a time, as when a replica follows: then there is a certificate of each state
		c, err := r.check(w.piece(r.ledger.latest.Load().height+1, 1))
		require.NoError(t, err)
		require.NoError(t, r.executePiece(c))
	}
	require.Len(t, r.snapshots.wanted, 1)
	require.NoError(t, r.saveSnapshot(t.Context(), <-r.snapshots.wanted))
	require.Zero(t, app.n)
	require.NoError(t, app.Close())
	return w, start, fs
}

// A start goes on from the state on disk: nothing of it is read from the snapshot.
func TestAStartDoesNotRestoreWhatIsOnDisk(t *testing.T) {
	w, start, _ := keeping(t)
	for range 2 {
		r, app := start()
		require.Zero(t, app.n, "restorations")
		require.NotZero(t, r.snapshots.height)
		require.Equal(t, w.ledger.stateAt(r.ledger.latest.Load().height).root, r.ledger.latest.Load().root)
		require.Equal(t, bft.Height(len(w.blocks)), r.ledger.latest.Load().height)
		require.NoError(t, app.Close())
	}
}

// One that finds the state damaged or gone restores the snapshot, and the next one goes on from
// that.
func TestAStartRestoresWhatIsNotOnDisk(t *testing.T) {
	for what, harm := range map[string]func(fs vfs.FS, dir string) error{
		"gone": func(fs vfs.FS, dir string) error { return fs.RemoveAll(dir) },
		"without its tables": func(fs vfs.FS, dir string) error {
			names, err := fs.List(dir)
			for _, name := range names {
				if strings.HasSuffix(name, ".sst") {
					err = fs.Remove(fs.PathJoin(dir, name))
				}
			}
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			w, start, fs := keeping(t)
			names, err := fs.List("state")
			require.NoError(t, err)
			for _, name := range names {
				if strings.Contains(name, ".") {
					require.NoError(t, harm(fs, "state/"+name))
				}
			}
			for _, want := range []int{1, 0} {
				r, app := start()
				require.Equal(t, want, app.n, "restorations")
				require.Equal(t, w.ledger.latest.Load().root, r.ledger.latest.Load().root)
				require.NoError(t, app.Close())
			}
		})
	}
}
