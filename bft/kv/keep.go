package kv

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/internal/database"
	"github.com/reseal-bft/reseal/bft/merkle"
	"github.com/reseal-bft/reseal/internal/files"
)

// kept is a directory with a state that outlives the process: the tables that the database had when
// the state was saved there, by hard links.
type kept struct {
	number int
	root   bft.Digest
}

// keptStates is the number of states that are kept: the newest may be of a snapshot that a crash
// left unfinished, and then the one before counts.
const keptStates = 2

// mostNumber is above all numbers that are reached by counting. Whoever puts a state of that number
// or more there has all of them removed: it would leave no numbers for those to come.
const mostNumber = math.MaxInt / 2

func (k kept) name() string { return fmt.Sprintf("%d.%x", k.number, k.root[:]) }

func parseKept(name string) (kept, bool) {
	number, root, _ := strings.Cut(name, ".")
	n, err := strconv.Atoi(number)
	digest, hexErr := hex.DecodeString(root)
	if err != nil || hexErr != nil || len(digest) != len(bft.Digest{}) {
		return kept{}, false
	}
	k := kept{n, bft.Digest(digest)}
	return k, n > 0 && k.name() == name
}

func (p *place) path(name string) string { return p.opts.FS.PathJoin(p.dir, name) }

// number names the next directory.
func (p *place) number() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.made++
	return p.made
}

// Keep begins to keep the content; see bft.Keeper. A store that is all in memory keeps nothing, and
// is restored at each start.
func (s *Store) Keep() bool {
	if s.place == nil {
		return true
	}
	if s.settle() != nil || s.saving != nil { // a failure is for Apply to say
		return false
	}
	s.save(true)
	return true
}

// keep keeps what the database holds, while nothing else is written there: the tree with a root.
func (d *disk) keep(root bft.Digest) error {
	p := d.place
	k := kept{p.number(), root}
	temp := p.path(strconv.Itoa(k.number)) // removed at the next start if this ends here
	err := d.db.Flush()
	if err == nil {
		err = database.Try(func() error { return d.db.Checkpoint(temp) })
	}
	if err == nil {
		err = p.opts.FS.Rename(temp, p.path(k.name()))
	}
	if err == nil {
		err = p.sync(p.dir)
	}
	if err != nil {
		return p.fail(fmt.Errorf("keep the state: %w", err))
	}
	p.mu.Lock()
	p.kept = append(p.kept, k)
	var old []kept
	if n := len(p.kept) - keptStates; n > 0 {
		old, p.kept = p.kept[:n:n], p.kept[n:]
	}
	p.mu.Unlock()
	p.remove(old)
	return nil
}

// sync makes the names in a directory durable.
func (p *place) sync(name string) error {
	dir, err := p.opts.FS.OpenDir(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// forget removes all states that were kept: the next start restores a snapshot.
func (p *place) forget() {
	p.mu.Lock()
	old := p.kept
	p.kept = nil
	p.mu.Unlock()
	p.remove(old)
}

func (p *place) remove(old []kept) {
	for _, k := range old {
		if err := p.opts.FS.RemoveAll(p.path(k.name())); err != nil {
			p.opts.Log.Error("removing a state that was kept failed: remove it before the next start if it is damaged", "dir", p.path(k.name()), "error", err)
		}
	}
}

// Resume makes a kept state the content; see bft.Keeper. What cannot be opened is removed.
func (s *Store) Resume(root bft.Digest) bool {
	if s.place == nil {
		return false
	}
	for _, k := range s.place.kept {
		if k.root != root {
			continue
		}
		fresh, err := s.place.resume(k)
		if err == nil {
			err = s.retire()
		}
		if err != nil {
			s.place.opts.Log.Error("the state that was kept is damaged; it is restored from a snapshot", "dir", s.place.path(k.name()), "error", err)
			s.place.forget()
			return false
		}
		*s = *fresh
		return true
	}
	return false
}

// resume opens a copy of a kept state, which goes on beside it.
func (p *place) resume(k kept) (*Store, error) {
	dir := p.path(strconv.Itoa(p.number()))
	if err := p.link(p.path(k.name()), dir); err != nil {
		return nil, errors.Join(err, p.opts.FS.RemoveAll(dir)) // else it takes its room until the next start
	}
	d, err := p.openDisk(dir)
	if err != nil {
		return nil, err
	}
	version := d.newVersion()
	mark, err := version.mark()
	if err == nil {
		if tree, ok := merkle.Stored(p.cache, version, mark); ok && tree.Root() == k.root {
			return &Store{content: tree, place: p, disk: d}, nil
		}
		err = fmt.Errorf("%w: it is another state than it says", merkle.ErrDamaged)
	}
	version.release()
	d.leave()
	return nil, err
}

// copied bounds what is copied of a kept state, in bytes: its list of tables, which a database lets
// grow to half of that, and some small files. Whoever writes there could leave what fills the disk.
const copied = 256 << 20

// link makes a directory with the same tables and values, which never change, and copies of all
// other files.
func (p *place) link(from, to string) error {
	fs := p.opts.FS
	names, err := fs.List(from)
	if err == nil {
		err = fs.MkdirAll(to, 0o700)
	}
	left := int64(copied)
	for _, name := range names {
		if err != nil {
			break
		}
		old, made := fs.PathJoin(from, name), fs.PathJoin(to, name)
		table := strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")
		if table && fs.Link(old, made) == nil {
			continue
		}
		var info vfs.FileInfo
		if info, err = fs.Stat(old); err != nil {
			break
		}
		if left -= info.Size(); left < 0 {
			return fmt.Errorf("%s: %w: more than %d MiB would have to be copied", from, files.ErrTooLarge, copied>>20)
		}
		err = vfs.LimitedCopy(fs, old, made, info.Size())
	}
	return err
}

// mark returns the mark of the tree that a version holds.
func (v *version) mark() ([]byte, error) {
	mark, closer, err := v.snapshot.Get([]byte{prefixMark})
	if err != nil {
		return nil, err
	}
	return bytes.Clone(mark), closer.Close()
}
