package store

import (
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
)

// damaged hears of files whose content is not what was written. The reader is told too; but the
// database may have met it in the background, where nobody is, and cannot go on with the file. So
// the store fails, which its owner sees at the next write.
func (s *Store) damaged(info pebble.DataCorruptionInfo) {
	s.opts.Log.Error("the database is damaged", "file", info.Path, "error", info.Details)
	_ = s.damagedFile(info.Path, info.Details)
}

// missing notes that a file of values is not there.
func (s *Store) missing() error { return s.fail(s.corrupt("a file of values is missing")) }

// damagedFile notes that a file of values does not hold what was written.
func (s *Store) damagedFile(name string, cause error) error {
	return s.fail(s.corrupt(filepath.Base(name) + " (" + cause.Error() + ")"))
}
