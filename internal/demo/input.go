package demo

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/internal/files"
	"github.com/reseal-bft/reseal/internal/load"
)

// Limits on what is read of an input directory.
const (
	maxInputFiles = 10_000
	maxInputFile  = 256 << 10 // bytes of one file; larger ones are left out
	maxInputBytes = 32 << 20  // bytes of all of them; the rest is left out
)

// defaultInputs are tried in order when no input directory is named.
var defaultInputs = []string{"/usr/share/ca-certificates", "."}

// keyPrefix comes before a file's name in its key.
const keyPrefix = "file/"

// readInput reads the regular files below dir: relative name -> content. It leaves out what is too
// large, and names that are too long for a key.
func readInput(dir string) ([]load.Pair, error) {
	var pairs []load.Pair
	var total int
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == ".git":
			return fs.SkipDir
		case !entry.Type().IsRegular():
			return nil
		case len(pairs) == maxInputFiles:
			return fs.SkipAll
		}
		info, err := entry.Info()
		if err != nil || info.Size() > maxInputFile || total+int(info.Size()) > maxInputBytes {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || len(keyPrefix)+len(name) > kv.MaxKey {
			return err
		}
		value, err := files.Read(path, maxInputFile)
		if err != nil {
			return err
		}
		total += len(value)
		pairs = append(pairs, load.Pair{Key: keyPrefix + filepath.ToSlash(name), Value: value})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("input: %w: name a directory that can be read with --input", err)
	}
	if len(pairs) == 0 {
		return nil, fmt.Errorf("input: there is no file of up to %d KiB, with a name of up to %d bytes, below %s: name another directory with --input",
			maxInputFile>>10, kv.MaxKey-len(keyPrefix), dir)
	}
	return pairs, nil
}

// findInput returns the directory to read: the one that was named, or the first default with files
// in it.
func findInput(named string) (dir string, pairs []load.Pair, err error) {
	if named != "" {
		pairs, err = readInput(named)
		return named, pairs, err
	}
	for _, dir := range defaultInputs {
		input, oneErr := readInput(dir)
		if oneErr == nil {
			return dir, input, nil
		}
		err = errors.Join(err, oneErr)
	}
	return "", nil, err
}
