package store

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// crashPoint is the file system as a crash may have left it, and what had been promised until then.
type crashPoint struct {
	fs       *vfs.MemFS
	votes    int        // synced
	snapshot bft.Height // saved
}

// crashes clones the file system before each operation that changes it.
type crashes struct {
	mu     sync.Mutex
	fs     *vfs.MemFS
	rng    *rand.Rand
	now    crashPoint
	points []crashPoint
}

func (c *crashes) before(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	point := c.now
	point.fs = c.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50 * (len(c.points) % 2), RNG: c.rng})
	c.points = append(c.points, point)
	return nil
}

func (c *crashes) promise(change func(*crashPoint)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.now)
}

type stateOf string

func (s stateOf) WriteTo(w io.Writer) (int64, error) { return strings.NewReader(string(s)).WriteTo(w) }

// TestCrashAtEveryPersistPoint runs a store from its first start on, crashes it before every
// operation that changes the disk, and asks each of these disks for what had been promised.
func TestCrashAtEveryPersistPoint(t *testing.T) {
	blocks := chain(1, 1, 24)
	for _, block := range blocks[12:] { // the later ones are kept in files of values
		block.Payload = bytes.Repeat(block.Payload, separate)
		block.Header.Payload = bft.PayloadDigest(block.Payload)
	}
	c := &crashes{fs: vfs.NewCrashableMem(), rng: rand.New(rand.NewPCG(1, 2))}
	s, err := Open("a/dir", cluster, Options{FS: errorfs.Wrap(c.fs, errorfs.InjectorFunc(c.before))})
	require.NoError(t, err)
	for i, block := range blocks {
		write(t, s, func(b *Batch) {
			require.NoError(t, b.PutBlock(block))
			require.NoError(t, b.PutVote(voteFor(block, true)))
			if i >= 2 {
				require.NoError(t, b.PutFinal(blocks[i-2].Height, blocks[i-2].Digest(), blocks[i-2].View))
			}
		})
		c.promise(func(p *crashPoint) { p.votes = i + 1 })
		if i%6 == 5 {
			require.NoError(t, s.SaveSnapshot(block.Height, stateOf(strings.Repeat("state", i))))
			c.promise(func(p *crashPoint) { p.snapshot = block.Height })
			require.NoError(t, s.db.Flush())
		}
	}
	require.NoError(t, s.Close())
	require.Greater(t, len(c.points), 100)
	for i, p := range c.points {
		checkAfterCrash(t, i, p, blocks)
	}
}

func checkAfterCrash(t *testing.T, i int, p crashPoint, blocks []*bft.Block) {
	s, err := Open("a/dir", cluster, Options{FS: p.fs})
	require.NoError(t, err, "crash point %d", i)
	votes, err := s.Votes(1)
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(votes), p.votes, "a synced vote is lost at crash point %d", i)
	for j := range votes {
		require.Equal(t, voteFor(blocks[j], true), votes[j])
		got, err := s.Block(blocks[j].Digest())
		require.NoError(t, err)
		require.Equal(t, blocks[j], got, "a block is stored with the vote for it")
	}
	r, err := s.Restore(1)
	require.NoError(t, err)
	require.EqualValues(t, max(0, len(votes)-2), r.Final.Height)

	height, snapshot, err := s.LatestSnapshot()
	require.NoError(t, err)
	require.GreaterOrEqual(t, height, p.snapshot, "a saved snapshot is lost at crash point %d", i)
	if snapshot != nil {
		content, err := io.ReadAll(snapshot)
		require.NoError(t, err)
		require.Equal(t, strings.Repeat("state", int(height)-1), string(content))
		require.NoError(t, snapshot.Close())
	}
	names, err := p.fs.List("a/dir/snapshots")
	require.NoError(t, err)
	require.False(t, slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, tempSuffix) }))
	require.NoError(t, s.Close())
}

// A mark tells of votes and blocks, so it is worth something only if they are durable before it,
// and it is itself: the mark beside an older store silences a replica that forgot nothing, and a
// newer store beside an older mark hides what was put back.
func TestWhatIsPromisedOutlivesAPowerCut(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := open(t, fs, "a/dir")
	cut := func() *Store { return open(t, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0}), "a/dir") }

	block := chain(1, 1, 1)[0]
	b := s.NewBatch()
	require.NoError(t, b.PutBlock(block))
	require.NoError(t, b.PutVote(voteFor(block, true)))
	require.NoError(t, b.Commit(false))
	votes, err := cut().Votes(1)
	require.NoError(t, err)
	require.Empty(t, votes, "what was not synced is lost: else this test can find nothing")

	require.NoError(t, s.Sync())
	votes, err = cut().Votes(1)
	require.NoError(t, err)
	require.Equal(t, []bft.Vote{voteFor(block, true)}, votes)

	later := voteFor(newBlock(1, 2, 2, block.Digest(), "later"), true)
	b = s.NewBatch()
	require.NoError(t, b.PutVote(later))
	require.NoError(t, b.Commit(false))
	require.NoError(t, s.NewBatch().Commit(true), "an empty one, with all before it")
	votes, err = cut().Votes(1)
	require.NoError(t, err)
	require.Equal(t, []bft.Vote{voteFor(block, true), later}, votes)

	for _, mark := range []string{"one", "two"} {
		require.NoError(t, s.WriteMark([]byte(mark)))
		got, err := cut().ReadMark()
		require.NoError(t, err)
		require.Equal(t, mark, string(got))
	}
}

func TestSnapshots(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs, "dir")
	for h := bft.Height(1); h <= 4; h++ {
		require.NoError(t, s.SaveSnapshot(h*100, stateOf(strings.Repeat("x", int(h)))))
	}
	heights, err := s.Snapshots()
	require.NoError(t, err)
	require.Equal(t, []bft.Height{400, 300}, heights)

	for _, damage := range []func([]byte) []byte{
		func(b []byte) []byte { b[len(b)-40] ^= 1; return b }, // the content
		func(b []byte) []byte { b[20] ^= 1; return b },        // the head
		func(b []byte) []byte { return b[:len(b)-1] },
		func(b []byte) []byte { return append(b, 0) },
		func(b []byte) []byte { return nil },
	} {
		whole := readFile(t, fs, "dir/snapshots/"+snapshotName(400))
		overwrite(t, fs, "dir/snapshots/"+snapshotName(400), damage(bytes.Clone(whole)))
		height, r, err := s.LatestSnapshot()
		require.NoError(t, err)
		require.EqualValues(t, 300, height, "the damaged one is passed over")
		content, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, "xxx", string(content))
		require.NoError(t, r.Close())
		overwrite(t, fs, "dir/snapshots/"+snapshotName(400), whole)
	}

	broken := errors.New("broken")
	require.ErrorIs(t, s.SaveSnapshot(500, failingState{broken}), broken)
	height, r, err := s.LatestSnapshot()
	require.NoError(t, err)
	require.EqualValues(t, 400, height)
	require.NoError(t, r.Close())
	names, err := fs.List("dir/snapshots")
	require.NoError(t, err)
	require.Len(t, names, 2)
}

type failingState struct{ err error }

func (f failingState) WriteTo(io.Writer) (int64, error) { return 0, f.err }

func readFile(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	require.NoError(t, err)
	defer f.Close()
	data, err := io.ReadAll(f)
	require.NoError(t, err)
	return data
}

func overwrite(t *testing.T, fs vfs.FS, name string, data []byte) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	if len(data) > 0 {
		_, err = f.Write(data)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
}

// Snapshots of absurd heights that somebody put there take the place of none that is good, and go
// with the next one.
func TestPlantedSnapshotsKeepNoPlace(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs, "dir")
	for _, h := range []bft.Height{math.MaxUint64, math.MaxUint64 - 1, 1 << 40} {
		f, err := fs.Create(s.path(snapshotDir, snapshotName(h)), vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	for _, h := range []bft.Height{5, 9, 12} {
		require.NoError(t, s.SaveSnapshot(h, stateOf("state")))
		found, r, err := s.LatestSnapshot()
		require.NoError(t, err)
		require.Equal(t, h, found)
		require.NoError(t, r.Close())
	}
	heights, err := s.Snapshots()
	require.NoError(t, err)
	require.Equal(t, []bft.Height{12, 9}, heights)
}

// TestFullDisk fills the disk beneath a running store: the commit says so, and nothing is written
// afterwards.
func TestFullDisk(t *testing.T) {
	var full errorfs.Toggle
	full.Injector = errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSync {
			return syscall.ENOSPC
		}
		return nil
	})
	fs := vfs.NewCrashableMem()
	failures := make(chan error, 1)
	s, err := Open("dir", cluster, Options{FS: errorfs.Wrap(fs, &full), OnFailure: func(err error) { failures <- err }})
	require.NoError(t, err)
	blocks := chain(1, 1, 4)
	fill(t, s, blocks[:2], 1)

	full.On()
	b := s.NewBatch()
	require.NoError(t, b.PutBlock(blocks[2]))
	err = b.Commit(true)
	require.ErrorIs(t, err, ErrFull)
	require.ErrorContains(t, err, "free some space")
	require.ErrorIs(t, <-failures, ErrFull)

	full.Off()
	b = s.NewBatch()
	require.NoError(t, b.PutBlock(blocks[3]))
	require.ErrorIs(t, b.Commit(true), ErrFailed)
	require.ErrorIs(t, s.SaveSnapshot(2, stateOf("x")), ErrFailed)
	require.NoError(t, s.Close())

	s = open(t, fs.CrashClone(vfs.CrashCloneCfg{}), "dir")
	votes, err := s.Votes(1)
	require.NoError(t, err)
	require.Len(t, votes, 2, "what was synced is there after a restart")
}

// smallDisk is a file system on a disk with little space.
type smallDisk struct {
	vfs.FS
	mu   sync.Mutex
	left uint64
}

func (d *smallDisk) set(left uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = left
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return vfs.DiskUsage{AvailBytes: d.left, TotalBytes: 1 << 30}, nil
}

func TestNearlyFullDisk(t *testing.T) {
	disk := &smallDisk{FS: vfs.NewMem(), left: 1 << 20}
	_, err := Open("dir", cluster, Options{FS: disk})
	require.ErrorIs(t, err, ErrFull)

	disk.set(1 << 30)
	s := open(t, disk, "dir")
	block := chain(1, 1, 1)[0]
	block.Payload = make([]byte, bft.MaxPayload)
	for range checkEvery/len(block.Payload) + 1 {
		write(t, s, func(b *Batch) { require.NoError(t, b.PutBlock(block)) })
	}

	for size, fits := range map[int64]bool{(1<<30 - 64<<20) / 2: true, (1<<30-64<<20)/2 + 1: false} {
		w, err := s.NewSnapshot(2, size)
		if fits {
			require.NoError(t, err)
			w.Discard()
		} else {
			require.ErrorIs(t, err, ErrFull, "it would take more than half of what is left above the reserve")
		}
	}

	disk.set(1 << 20)
	err = nil
	for range checkEvery/len(block.Payload) + 1 {
		b := s.NewBatch()
		require.NoError(t, b.PutBlock(block))
		err = errors.Join(err, b.Commit(true))
	}
	require.ErrorIs(t, err, ErrFull)
	require.ErrorIs(t, s.SaveSnapshot(2, stateOf("x")), ErrFull)
}

func TestASnapshotIsReadInParts(t *testing.T) {
	s := open(t, vfs.NewMem(), "store")
	found, _, _, err := s.ReadSnapshot(0, 0, make([]byte, 4))
	require.NoError(t, err)
	require.Zero(t, found, "there is none")

	require.NoError(t, s.SaveSnapshot(7, stateOf("0123456789")))
	var whole []byte
	for part := make([]byte, 4); ; {
		found, size, n, err := s.ReadSnapshot(0, int64(len(whole)), part)
		require.NoError(t, err)
		require.Equal(t, bft.Height(7), found)
		require.EqualValues(t, 10, size)
		if n == 0 {
			break
		}
		whole = append(whole, part[:n]...)
	}
	require.Equal(t, "0123456789", string(whole))

	found, _, n, err := s.ReadSnapshot(7, math.MaxInt64, make([]byte, 4))
	require.NoError(t, err)
	require.Equal(t, bft.Height(7), found)
	require.Zero(t, n, "past the end")
	require.NoError(t, s.DropSnapshot(7))
	require.NoError(t, s.DropSnapshot(7), "it is gone already")
	found, _, _, err = s.ReadSnapshot(7, 0, make([]byte, 4))
	require.NoError(t, err)
	require.Zero(t, found)
}

// slowDisk counts what is written to a file since it was synced.
type slowDisk struct {
	vfs.FS
	waits, most int
}

type slowFile struct {
	vfs.File
	disk *slowDisk
}

func (d *slowDisk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.Create(name, category)
	return slowFile{f, d}, err
}

func (f slowFile) Write(p []byte) (int, error) {
	f.disk.waits += len(p)
	f.disk.most = max(f.disk.most, f.disk.waits)
	return f.File.Write(p)
}

func (f slowFile) SyncData() error {
	f.disk.waits = 0
	return f.File.SyncData()
}

func (f slowFile) SyncTo(int64) (fullSync bool, err error) { return true, f.SyncData() }

// A large snapshot goes to the disk as it is written: votes do not wait for all of it.
func TestASnapshotIsSyncedAsItIsWritten(t *testing.T) {
	s := open(t, vfs.NewMem(), "dir")
	disk := &slowDisk{FS: s.fs}
	s.fs = disk
	w, err := s.NewSnapshot(1, 0)
	require.NoError(t, err)
	for range 64 {
		_, err := w.Write(make([]byte, 1<<18))
		require.NoError(t, err)
	}
	require.NoError(t, w.Commit())
	require.LessOrEqual(t, disk.most, 2<<20)
}
