package store

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/budget"
	"github.com/reseal-bft/reseal/bft/internal/database"
	"github.com/reseal-bft/reseal/internal/files/dbfs"
)

// Options are the choices of whoever opens a store. The zero value will do.
type Options struct {
	// FS is the file system; nil stands for the machine's.
	FS vfs.FS
	// Log is told of what the database does badly; nil discards it.
	Log *slog.Logger
	// CacheBytes bounds the cache of blocks read; 0 stands for 16 MiB.
	CacheBytes int64
	// Reserve is the free space that the disk must keep, in bytes, or else writes are refused with
	// [ErrFull]; 0 stands for 64 MiB. An orderly stop needs some.
	Reserve uint64
	// OnFailure is called once, from any goroutine, when the disk fails beneath the database:
	// nothing can be written from then on, a goroutine that is just writing may hang, and the
	// process should end. May be nil.
	OnFailure func(error)
}

// What the database takes in memory, which Go's memory limit does not count: [budget.Log].
const (
	cacheBytes = 16 << 20
	memTables  = 4
	memTable   = (budget.Log - cacheBytes) / memTables
)

// Store is an open store. Safe for concurrent use.
type Store struct {
	dir     string
	cluster bft.ClusterID
	fs      vfs.FS
	opts    Options
	lock    io.Closer
	db      *pebble.DB

	failure   atomic.Pointer[error]
	stuck     chan error   // why a goroutine of the database stands still for ever, the first of them
	unchecked atomic.Int64 // bytes written since the disk's free space was looked at
	snapshots sync.Mutex   // one writer of snapshots
}

// Open opens the store in dir, or makes one there if dir is empty or does not exist. It returns
// [ErrForeign], [ErrNotEmpty], [ErrLocked], [ErrFull] or [ErrCorrupt], each in one line that says
// what to do.
func Open(dir string, cluster bft.ClusterID, opts Options) (*Store, error) {
	s := &Store{dir: dir, cluster: cluster, opts: opts, fs: dbfs.Regular(opts.FS), stuck: make(chan error, 1)}
	if s.opts.Log == nil {
		s.opts.Log = slog.New(slog.DiscardHandler)
	}
	if s.opts.CacheBytes == 0 {
		s.opts.CacheBytes = cacheBytes
	}
	if s.opts.Reserve == 0 {
		s.opts.Reserve = 64 << 20
	}
	if err := s.claim(); err != nil {
		return nil, err
	}
	if err := s.openDB(); err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	return s, nil
}

func (s *Store) openDB() error {
	if err := s.checkSpace(); err != nil {
		return err
	}
	if err := s.makeDir(s.path(dbName)); err != nil {
		return explain(s.dir, err)
	}
	if err := s.checkManifest(); err != nil {
		return err
	}
	opened := make(chan error, 1)
	go func() {
		opened <- database.Try(func() (err error) {
			s.db, err = pebble.Open(s.path(dbName), s.pebbleOptions())
			return err
		})
	}()
	select {
	case err := <-opened:
		if err != nil {
			return s.openError(err)
		}
	case err := <-s.stuck:
		return err
	}
	if err := s.prepareSnapshots(); err != nil {
		return errors.Join(err, s.db.Close())
	}
	return nil
}

// openError tells what the operating system refuses from what the database does not understand:
// that is damage, whatever it is called there.
func (s *Store) openError(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) && errno != syscall.EISDIR && errno != syscall.ENOTDIR && errno != syscall.ENOENT {
		return explain(s.dir, err)
	}
	return s.corrupt(err.Error())
}

// checkManifest refuses a database that has data and no manifest, or no file that says which one
// counts: opened, it would be an empty one.
func (s *Store) checkManifest() error {
	names, err := s.fs.List(s.path(dbName))
	if err != nil {
		return explain(s.dir, err)
	}
	data, manifest, marker := false, false, false
	for _, name := range names {
		data = data || strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob") || strings.HasSuffix(name, ".log")
		manifest = manifest || strings.HasPrefix(name, "MANIFEST-")
		marker = marker || strings.HasPrefix(name, "marker.manifest.")
	}
	if data && !(manifest && marker) {
		return s.corrupt("the database has lost its MANIFEST")
	}
	return nil
}

// separate is the size from which a value goes into a file of values, which compactions leave
// alone: a block is written to disk twice, with the log and with the flush, and not once more for
// each level.
const separate = 1 << 10

// pebbleOptions suit large values written in order of their keys and seldom read: big memtables, no
// compression of what is mostly signatures and hashes.
func (s *Store) pebbleOptions() *pebble.Options {
	opts := &pebble.Options{
		FS:                          database.Guard(s.fs, s.damagedFile),
		Logger:                      pebbleLog{s},
		CacheSize:                   s.opts.CacheBytes,
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                memTable,
		MemTableStopWritesThreshold: memTables,
		MaxOpenFiles:                512,
		BytesPerSync:                1 << 20,
		EventListener:               &pebble.EventListener{BackgroundError: s.backgroundError, DataCorruption: s.damaged},
	}
	opts.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{
			Enabled: true, MinimumSize: separate, MaxBlobReferenceDepth: 10, RewriteMinimumAge: 10 * time.Minute, TargetGarbageRatio: 0.3,
		}
	}
	for i := range opts.Levels {
		opts.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	}
	return opts
}

// Close closes the store. No other method may run meanwhile or afterwards.
func (s *Store) Close() error {
	if s.failed() != nil {
		// The database would wait for goroutines that stopped at the failure. What was synced is safe.
		return s.lock.Close()
	}
	return errors.Join(s.db.Close(), s.lock.Close())
}

func (s *Store) path(name ...string) string {
	return s.fs.PathJoin(append([]string{s.dir}, name...)...)
}

// failed returns why nothing can be written any more; nil while all is well.
func (s *Store) failed() error {
	if err := s.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// fail records the first failure and tells the owner.
func (s *Store) fail(err error) error {
	err = fmt.Errorf("%w: %w", ErrFailed, explain(s.dir, err))
	if s.failure.CompareAndSwap(nil, &err) && s.opts.OnFailure != nil {
		s.opts.OnFailure(err)
	}
	return s.failed()
}

// backgroundError hears of failures of flushes and compactions, which the database tries again.
func (s *Store) backgroundError(err error) {
	s.opts.Log.Error("the database failed in the background", "dir", s.dir, "error", err)
	if errors.Is(err, syscall.ENOSPC) {
		_ = s.fail(err)
	}
}

// checkEvery is the number of bytes written between two looks at the disk's free space.
const checkEvery = 4 << 20

// checkSpace refuses to go on when the disk is nearly full: the database itself would hang or die.
func (s *Store) checkSpace() error { return s.checkSpaceFor(0) }

// checkSpaceFor refuses what would take more than half of the space that is left above the reserve.
func (s *Store) checkSpaceFor(bytes int64) error {
	usage, err := s.fs.GetDiskUsage(s.dir)
	if errors.Is(err, vfs.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return explain(s.dir, err)
	}
	if room := usage.AvailBytes - min(s.opts.Reserve, usage.AvailBytes); bytes > 0 && uint64(bytes) > room/2 {
		return fmt.Errorf("%w: %s has %d MiB left, too little for %d MiB more: free some space", ErrFull, s.dir, usage.AvailBytes>>20, bytes>>20)
	}
	if usage.AvailBytes < s.opts.Reserve {
		return fmt.Errorf("%w: %s has %d MiB left and needs %d: free some space and start again",
			ErrFull, s.dir, usage.AvailBytes>>20, s.opts.Reserve>>20)
	}
	return nil
}

// pebbleLog passes on what the database reports.
type pebbleLog struct{ s *Store }

func (l pebbleLog) Infof(string, ...any) {}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.s.opts.Log.Warn(fmt.Sprintf(format, args...), "dir", l.s.dir)
}

// Fatalf is called where the database cannot go on; it expects the process to end. A failed commit
// returns to the committer, who sees the failure. Any other caller would go on as if nothing had
// happened, so it stops here for ever.
func (l pebbleLog) Fatalf(format string, args ...any) {
	const commitFailed = "pebble: fatal commit error: %v"
	err := fmt.Errorf(format, args...)
	if len(args) == 1 {
		if cause, ok := args[0].(error); ok {
			err = cause
		}
	}
	l.s.opts.Log.Error("the database has failed", "dir", l.s.dir, "error", err)
	failure := l.s.fail(err)
	if format != commitFailed {
		select {
		case l.s.stuck <- failure:
		default:
		}
		select {}
	}
}
