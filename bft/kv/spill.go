package kv

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reseal-bft/reseal/bft/internal/database"
	"github.com/reseal-bft/reseal/bft/merkle"
	"github.com/reseal-bft/reseal/internal/files/dbfs"
)

// Options are the choices of whoever opens a store. The zero value will do.
type Options struct {
	// FS is the file system; nil stands for the machine's.
	FS vfs.FS
	// Memory bounds what the store takes, in bytes: a quarter for what is not on disk yet, which
	// doubles while it is written; a quarter for nodes that were read; and a quarter in the
	// database, which Go's memory limit does not count. 0 stands for 256 MiB, and less than 8 MiB
	// for these.
	Memory int64
	// Log is told of what the database does badly; nil discards it.
	Log *slog.Logger
}

const (
	defaultMemory = 256 << 20
	leastMemory   = 8 << 20
)

// Open returns an empty store that has in dir what does not fit in memory. Of what an earlier process
// left there nothing remains but the states that it kept, for [Store.Resume]. Without them a replica
// restores its state from a snapshot and the log, which are proven: the directory needs no backup.
func Open(dir string, opts Options) (*Store, error) {
	opts.FS = dbfs.Regular(opts.FS)
	if opts.Memory == 0 {
		opts.Memory = defaultMemory
	}
	opts.Memory = max(opts.Memory, leastMemory)
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	p := &place{opts: opts, dir: dir, limit: opts.Memory / 4, cache: merkle.NewCache(opts.Memory / 4), disks: make(map[*disk]struct{}), broken: make(chan struct{})}
	if err := p.claim(); err != nil {
		return nil, err
	}
	s, err := p.open()
	if err != nil {
		return nil, errors.Join(err, p.lock.Close())
	}
	return s, nil
}

// open returns an empty store with a database of its own.
func (p *place) open() (*Store, error) {
	d, err := p.openDisk(p.path(strconv.Itoa(p.number())))
	if err != nil {
		return nil, err
	}
	return &Store{content: merkle.NewTree(p.cache), place: p, disk: d}, nil
}

// fresh returns an empty store beside this one.
func (s *Store) fresh() (*Store, error) {
	if s.place == nil {
		return New(), nil
	}
	return s.place.open()
}

// retire leaves the database to the states that refer to it.
func (s *Store) retire() error {
	if s.place == nil {
		return nil
	}
	err := s.wait()
	s.disk.leave()
	return err
}

// Close ends the use of the directory. No state may be read meanwhile; afterwards those that are
// not in memory fail.
func (s *Store) Close() error {
	if s.place == nil {
		return nil
	}
	err := s.wait()
	s.place.mu.Lock()
	disks := slices.Collect(maps.Keys(s.place.disks))
	s.place.mu.Unlock()
	for _, d := range disks {
		d.release()
	}
	s.disk.leave()
	for _, d := range disks {
		select {
		case <-d.closed:
		case <-s.place.broken:
		}
	}
	return errors.Join(err, s.place.lock.Close())
}

// saved is what came of writing a tree to disk.
type saved struct {
	tree    merkle.Tree
	version *version
	err     error
}

// relieve sees to it that what is only in memory goes to disk when it is too much. The service
// waits for it when it is twice as much.
func (s *Store) relieve() error {
	if s.place == nil {
		return nil
	}
	limit := s.place.limit
	if s.unsaved() > 2*limit {
		if err := s.wait(); err != nil {
			return err
		}
	}
	if s.unsaved() > limit && s.saving == nil {
		s.save(false)
	}
	return nil
}

// unsaved is the memory that a save would set free, in bytes.
func (s *Store) unsaved() int64 {
	const note = 64
	return s.content.Unsaved() + note*int64(len(s.gone.Nodes)+len(s.gone.Values))
}

// save begins to write the content to disk, beside everything else, and to keep it there if it is to
// be kept.
func (s *Store) save(keep bool) {
	done := make(chan saved, 1)
	go func(d *disk, tree merkle.Tree, gone merkle.Gone) {
		version, err := d.save(tree, gone)
		if err == nil && keep {
			err = d.keep(tree.Root())
		}
		done <- saved{tree, version, err}
	}(s.disk, s.content, s.gone)
	s.saving, s.gone = done, merkle.Gone{}
}

// wait waits for a save that is under way, and lets go of what it has written.
func (s *Store) wait() error {
	if s.saving == nil {
		return nil
	}
	select {
	case done := <-s.saving:
		return s.settled(done)
	case <-s.place.broken: // the save may hang
		return s.place.failed()
	}
}

// settle is wait, but for what is not done yet.
func (s *Store) settle() error {
	if s.place == nil {
		return nil
	}
	select {
	case done := <-s.saving:
		return s.settled(done)
	default:
		return s.place.failed()
	}
}

func (s *Store) settled(done saved) error {
	s.saving = nil
	if done.err != nil {
		return done.err
	}
	s.content = s.content.After(done.tree, done.version)
	return s.place.failed() // what was written in vain may have failed only afterwards
}

// noted is where it is noted what is to be deleted from disk.
func (s *Store) noted() *merkle.Gone {
	if s.place == nil {
		return nil
	}
	return &s.gone
}

// place is a directory in which the databases of a store are: one, and those that states still
// refer to after a snapshot was restored.
type place struct {
	opts  Options
	dir   string
	limit int64 // of what is not on disk yet, in bytes
	cache *merkle.Cache
	lock  io.Closer

	mu    sync.Mutex
	made  int                // the number of the last directory
	kept  []kept             // the newest last
	disks map[*disk]struct{} // that are open

	failure atomic.Pointer[error]
	broken  chan struct{} // closed with the failure
}

// fail takes note that the disk has failed, and returns the first failure: from then on nothing is
// read or executed.
func (p *place) fail(err error) error {
	err = fmt.Errorf("%s: %w", p.dir, advise(err))
	if p.failure.CompareAndSwap(nil, &err) {
		p.opts.Log.Error("the state on disk has failed", "error", err)
		if errors.Is(err, merkle.ErrDamaged) {
			p.forget()
		}
		close(p.broken)
	}
	return p.failed()
}

// failed returns the first failure; nil while all is well.
func (p *place) failed() error {
	if err := p.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// check takes note of an error that damage has caused, whoever has met it.
func (p *place) check(err error) error {
	if p != nil && p.failed() == nil && errors.Is(err, merkle.ErrDamaged) {
		return p.fail(err)
	}
	return err
}

// ErrFull: the disk is full, or nearly.
var ErrFull = errors.New("the disk is full")

// advise says what to do about a failure of the disk.
func advise(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		err = fmt.Errorf("%w: %w", ErrFull, err)
	case pebble.IsCorruptionError(err) || errors.Is(err, pebble.ErrNotFound):
		err = fmt.Errorf("%w: %w", merkle.ErrDamaged, err)
	}
	switch {
	case errors.Is(err, ErrFull):
		return fmt.Errorf("%w: free some space and start again", err)
	case errors.Is(err, merkle.ErrDamaged):
		return fmt.Errorf("%w: look for a failing disk, or for who writes there, and start again: the state is then made again from the last snapshot", err)
	}
	return err
}

const lockName = "LOCK"

// claim locks the directory and removes what was left there, but for states that were kept.
func (p *place) claim() error {
	err := p.opts.FS.MkdirAll(p.dir, 0o700)
	if err == nil {
		err = p.sync(p.opts.FS.PathDir(p.dir))
	}
	var names []string
	if err == nil {
		names, err = p.opts.FS.List(p.dir)
	}
	if err != nil {
		return cmp.Or(database.Refused(p.dir, err), fmt.Errorf("the directory of the state: %w", err))
	}
	var old []string
	for _, name := range names {
		if k, ok := parseKept(name); ok {
			p.kept = append(p.kept, k)
			p.made = max(p.made, k.number)
		} else if _, err := strconv.ParseUint(name, 10, 63); err == nil {
			old = append(old, name)
		} else if name != lockName {
			return fmt.Errorf("%s holds %s, which no store has made there: name an empty directory, or one that does not exist yet", p.dir, name)
		}
	}
	if p.made >= mostNumber {
		for _, k := range p.kept {
			old = append(old, k.name())
		}
		p.made, p.kept = 0, nil
	}
	slices.SortFunc(p.kept, func(a, b kept) int { return cmp.Compare(a.number, b.number) })
	if p.lock, err = p.opts.FS.Lock(p.opts.FS.PathJoin(p.dir, lockName)); err != nil {
		if errors.Is(err, dbfs.ErrLocked) {
			return fmt.Errorf("%s is in use: stop the other process, or name another directory: %w", p.dir, err)
		}
		if refused := database.Refused(p.dir, err); refused != nil {
			return refused
		}
		return fmt.Errorf("the directory of the state, of which nothing is needed after a stop: remove it as a whole and start again: %w", advise(err))
	}
	for _, name := range old {
		if err := p.opts.FS.RemoveAll(p.opts.FS.PathJoin(p.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(cmp.Or(database.Refused(p.dir, err), fmt.Errorf("remove what was left of an earlier state: %w", err)), p.lock.Close())
		}
	}
	return nil
}
