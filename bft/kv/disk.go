package kv

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/internal/database"
	"github.com/reseal-bft/reseal/bft/merkle"
)

// disk is a database that holds nodes and values of one store, for as long as that or a state
// refers to it. Nothing of it outlives the process, so it writes no log and syncs nothing.
type disk struct {
	place *place
	dir   string
	db    *pebble.DB

	mu       sync.Mutex
	users    int                  // the store and the versions
	versions map[*pinned]struct{} // that are not released
	closed   chan struct{}        // when nobody uses it any more
}

// The first byte of each key.
const (
	prefixNode  = 'n' // path: an inner node
	prefixValue = 'v' // key: an entry
	prefixMark  = 'm' // the tree that was saved last
)

// separate is the size, in bytes, from which a value goes into a file of values, which compactions
// leave alone. Nodes of the tree are smaller.
const separate = 300

func (p *place) openDisk(dir string) (*disk, error) {
	d := &disk{place: p, dir: dir, users: 1, versions: make(map[*pinned]struct{}), closed: make(chan struct{})}
	memory := p.opts.Memory / 4
	opts := &pebble.Options{
		FS:                          database.Guard(p.opts.FS, d.damaged),
		Logger:                      pebbleLog{d},
		DisableWAL:                  true,
		FormatMajorVersion:          pebble.FormatNewest,
		CacheSize:                   memory / 2,
		MemTableSize:                uint64(memory / 6), // up to three of them
		MemTableStopWritesThreshold: 3,
		MaxOpenFiles:                512,
		BytesPerSync:                1 << 20,
		EventListener:               &pebble.EventListener{BackgroundError: d.backgroundError, DataCorruption: d.corrupted},
	}
	opts.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{
			Enabled: true, MinimumSize: separate, MaxBlobReferenceDepth: 10, RewriteMinimumAge: time.Minute, TargetGarbageRatio: 0.3,
		}
	}
	opts.TargetFileSizes[0] = 8 << 20
	for i := range opts.Levels {
		opts.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
		if i < len(opts.Levels)-1 { // what is looked for is there, so the last level is not asked in vain
			opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		}
	}
	opened := make(chan error, 1)
	go func() {
		opened <- database.Try(func() (err error) {
			d.db, err = pebble.Open(dir, opts)
			return err
		})
	}()
	select {
	case err := <-opened:
		if err != nil {
			return nil, fmt.Errorf("open a database for the state: %w", advise(err))
		}
	case <-p.broken: // it may hang
		return nil, p.failed()
	}
	p.mu.Lock()
	p.disks[d] = struct{}{}
	p.mu.Unlock()
	return d, nil
}

// leave counts a user of the database out. The last one removes it.
func (d *disk) leave() {
	d.mu.Lock()
	d.users--
	last := d.users == 0
	d.mu.Unlock()
	if !last || d.place.failed() != nil { // one that has failed might hang
		return
	}
	defer close(d.closed)
	d.place.mu.Lock()
	delete(d.place.disks, d)
	d.place.mu.Unlock()
	if err := errors.Join(d.db.Close(), d.place.opts.FS.RemoveAll(d.dir)); err != nil {
		d.place.opts.Log.Error("removing an old state failed; it goes at the next start", "dir", d.dir, "error", err)
	}
}

// release ends all versions.
func (d *disk) release() {
	d.mu.Lock()
	versions := slices.Collect(maps.Keys(d.versions))
	d.mu.Unlock()
	for _, p := range versions {
		p.release()
	}
}

// backgroundError hears of flushes and compactions that failed, and are tried again for ever.
func (d *disk) backgroundError(err error) { _ = d.place.fail(err) }

// damaged notes that a file does not hold what was written.
func (d *disk) damaged(file string, cause error) error {
	return d.place.fail(fmt.Errorf("%w: %s: %w", merkle.ErrDamaged, file, cause))
}

// missing notes that a file of values is not there.
func (d *disk) missing() error { return d.damaged(d.dir, errors.New("a file of values is missing")) }

// corrupted hears of files that do not hold what was written, from whoever reads them.
func (d *disk) corrupted(info pebble.DataCorruptionInfo) {
	_ = d.damaged(info.Path, info.Details)
}

// pebbleLog passes on what the database reports.
type pebbleLog struct{ d *disk }

func (pebbleLog) Infof(string, ...any) {}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.d.place.opts.Log.Warn(fmt.Sprintf(format, args...), "dir", l.d.dir)
}

// Fatalf is called where the database cannot go on. Its goroutine stops here for ever; who waits
// for it hears of the failure.
func (l pebbleLog) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	if len(args) == 1 {
		if cause, ok := args[0].(error); ok { // which the format does not wrap
			err = cause
		}
	}
	_ = l.d.place.fail(err)
	select {}
}

var errClosed = errors.New("the store is closed")

// batchBytes is how much is written at once.
const batchBytes = 1 << 20

// checkEvery is the number of bytes written between two looks at the disk's free space.
const checkEvery = 32 << 20

// save writes a tree, after it has deleted what is gone, and returns the version that holds it.
func (d *disk) save(tree merkle.Tree, gone merkle.Gone) (*version, error) {
	w := &saver{disk: d, batch: d.db.NewBatch(), unchecked: checkEvery}
	for _, path := range gone.Nodes {
		if err := w.batch.Delete(append([]byte{prefixNode}, path...), nil); err != nil {
			return nil, err
		}
	}
	for _, key := range gone.Values {
		if err := w.batch.Delete(append([]byte{prefixValue}, key[:]...), nil); err != nil {
			return nil, err
		}
	}
	err := tree.Save(w)
	if err == nil {
		err = w.set(prefixMark, nil, tree.Mark())
	}
	if err == nil {
		err = w.commit()
	}
	if err != nil {
		return nil, d.place.fail(err)
	}
	return d.newVersion(), nil
}

// saver collects what is saved in batches.
type saver struct {
	disk      *disk
	batch     *pebble.Batch
	unchecked int
}

func (w *saver) WriteNode(path, node []byte) error { return w.set(prefixNode, path, node) }

func (w *saver) WriteValue(key bft.Digest, value []byte) error {
	return w.set(prefixValue, key[:], value)
}

func (w *saver) set(prefix byte, key, value []byte) error {
	op := w.batch.SetDeferred(1+len(key), len(value))
	op.Key[0] = prefix
	copy(op.Key[1:], key)
	copy(op.Value, value)
	if err := op.Finish(); err != nil || w.batch.Len() < batchBytes {
		return err
	}
	if err := w.commit(); err != nil {
		return err
	}
	w.batch = w.disk.db.NewBatch()
	return nil
}

func (w *saver) commit() error {
	if w.unchecked += w.batch.Len(); w.unchecked >= checkEvery {
		w.unchecked = 0
		if err := w.disk.checkSpace(); err != nil {
			return err
		}
	}
	if err := w.batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	return w.batch.Close()
}

// reserve is the free space that the disk must keep, in bytes: the replica's log needs some.
const reserve = 128 << 20

func (d *disk) checkSpace() error {
	usage, err := d.place.opts.FS.GetDiskUsage(d.dir)
	if errors.Is(err, vfs.ErrUnsupported) {
		return nil
	}
	if err == nil && usage.AvailBytes < reserve {
		err = fmt.Errorf("%w: %d MiB are left, and %d needed", ErrFull, usage.AvailBytes>>20, reserve>>20)
	}
	return err
}

// version is what a database held when a tree was saved there. It may be read concurrently, and is
// let go of when nobody refers to it any more.
type version struct{ *pinned }

type pinned struct {
	disk     *disk
	snapshot *pebble.Snapshot
	gone     atomic.Bool
}

func (d *disk) newVersion() *version {
	p := &pinned{disk: d, snapshot: d.db.NewSnapshot()}
	d.mu.Lock()
	d.users++
	d.versions[p] = struct{}{}
	d.mu.Unlock()
	v := &version{p}
	runtime.AddCleanup(v, func(p *pinned) { go p.release() }, p)
	return v
}

func (p *pinned) release() {
	if p.gone.CompareAndSwap(false, true) {
		p.disk.mu.Lock()
		delete(p.disk.versions, p)
		p.disk.mu.Unlock()
		if p.disk.place.failed() == nil { // what has failed might hang
			_ = p.snapshot.Close()
		}
		p.disk.leave()
	}
}

func (v *version) ReadNode(path []byte) ([]byte, error) {
	return v.get(append([]byte{prefixNode}, path...))
}

func (v *version) ReadValue(key bft.Digest) ([]byte, error) {
	return v.get(append([]byte{prefixValue}, key[:]...))
}

// usable says why nothing can be read, if so.
func (v *version) usable() error {
	if v.gone.Load() {
		return errClosed
	}
	return v.disk.place.failed()
}

func (v *version) get(key []byte) (value []byte, err error) {
	defer database.Recover(&err, v.disk.missing)
	defer runtime.KeepAlive(v)
	if err := v.usable(); err != nil {
		return nil, err
	}
	value, closer, err := v.snapshot.Get(key)
	if err != nil {
		return nil, v.disk.place.fail(err)
	}
	value = append(make([]byte, 0, len(value)), value...)
	return value, closer.Close()
}

// scan reads a version in the order of its keys. It is used by one goroutine, and closed.
type scan struct {
	version *version
	nodes   *pebble.Iterator
	values  *pebble.Iterator
}

func (v *version) scan() (*scan, error) {
	if err := v.usable(); err != nil {
		return nil, err
	}
	s := &scan{version: v}
	var err error
	if s.nodes, err = s.iterator(prefixNode); err == nil {
		s.values, err = s.iterator(prefixValue)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *scan) iterator(prefix byte) (*pebble.Iterator, error) {
	return s.version.snapshot.NewIter(&pebble.IterOptions{LowerBound: []byte{prefix}, UpperBound: []byte{prefix + 1}})
}

func (s *scan) close() (err error) {
	for _, it := range []*pebble.Iterator{s.nodes, s.values} {
		if it != nil {
			err = errors.Join(err, it.Close())
		}
	}
	runtime.KeepAlive(s.version)
	return err
}

func (s *scan) ReadNode(path []byte) ([]byte, error) {
	return s.read(s.nodes, append([]byte{prefixNode}, path...))
}

func (s *scan) ReadValue(key bft.Digest) ([]byte, error) {
	return s.read(s.values, append([]byte{prefixValue}, key[:]...))
}

// read returns the value of a key that is mostly the next one.
func (s *scan) read(it *pebble.Iterator, key []byte) (value []byte, err error) {
	defer database.Recover(&err, s.version.disk.missing)
	found := it.Valid() && it.Next() && string(it.Key()) == string(key) ||
		it.SeekGE(key) && string(it.Key()) == string(key)
	err = it.Error()
	if err == nil && !found {
		err = pebble.ErrNotFound
	}
	if err != nil {
		return nil, s.version.disk.place.fail(err)
	}
	value, err = it.ValueAndErr()
	if err != nil {
		err = s.version.disk.place.fail(err)
	}
	return value, err
}
