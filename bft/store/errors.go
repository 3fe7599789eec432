package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/reseal-bft/reseal/bft/internal/database"
)

// Errors that a caller can act on.
var (
	// ErrForeign: the directory belongs to another cluster, or to another format.
	ErrForeign = errors.New("the directory holds another store")
	// ErrNotEmpty: the directory holds files that no store has made.
	ErrNotEmpty = errors.New("the directory is not empty and holds no store")
	// ErrLocked: another process has the store open.
	ErrLocked = errors.New("the store is in use")
	// ErrCorrupt: what is on disk is damaged.
	ErrCorrupt = errors.New("the store is damaged")
	// ErrFull: the disk is full, or nearly.
	ErrFull = errors.New("the disk is full")
	// ErrFailed: an earlier write failed, and nothing can be written any more.
	ErrFailed = errors.New("the store has failed")
)

// corrupt says which record is damaged and what to do.
func (s *Store) corrupt(what string) error {
	what, _, _ = strings.Cut(what, "\n")
	return fmt.Errorf("%w: %s in %s: move the directory away (not %s beside it) and start again; the replica then fetches the log from the others, "+
		"and votes again from the next epoch on", ErrCorrupt, what, s.dir, filepath.Base(s.markPath()))
}

// explain turns an error of the file system into one line that says what to do.
func explain(dir string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrCorrupt): // has its advice
		return err
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: free some space for %s and start again: %w", ErrFull, dir, err)
	case errors.Is(err, syscall.EIO):
		return fmt.Errorf("%s: the disk fails: copy what can be read of the directory (and the .mark file beside it) to another disk, and start there: %w", dir, err)
	}
	if refused := database.Refused(dir, err); refused != nil {
		return refused
	}
	return fmt.Errorf("%s: %w", dir, err)
}
