package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

var (
	// ErrNotRegular: what is at the path is a pipe, a socket, a device, a directory, or, where none
	// is followed, a link.
	ErrNotRegular = errors.New("not a regular file")
	// ErrTooLarge: the file has more bytes than the reader allows.
	ErrTooLarge = errors.New("larger than any file of its kind")
)

// Open opens a regular file for reading. Links are followed.
func Open(path string) (*os.File, error) { return open(path, os.O_RDONLY, os.Stat) }

// OpenHere opens a regular file that exists, with the flags of [os.OpenFile], and follows no link at
// the end of the path.
func OpenHere(path string, flag int) (*os.File, error) { return open(path, flag|noFollow, os.Lstat) }

// open looks before it opens, since to open a device can be enough for it to act, and once more at
// what it has opened, which need not be what it looked at.
func open(path string, flag int, stat func(string) (fs.FileInfo, error)) (*os.File, error) {
	info, err := stat(path)
	if err != nil {
		return nil, err
	}
	if err := Check(path, info); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, flag|noWait, 0)
	if err != nil {
		return nil, err
	}
	if info, err = file.Stat(); err == nil {
		err = Check(path, info)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// OpenDevice opens a character device for reading and writing.
func OpenDevice(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode()&fs.ModeCharDevice == 0 {
		return nil, fmt.Errorf("%s is no device", path)
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

// Check returns [ErrNotRegular], with what it is instead, unless info, which is of the path, is that
// of a regular file.
func Check(path string, info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	return fmt.Errorf("%s is %s, %w", path, kind(info.Mode()), ErrNotRegular)
}

func kind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	case mode&fs.ModeSymlink != 0:
		return "a link"
	}
	return "something else"
}

// Read returns the content of a regular file of at most so many bytes, or [ErrTooLarge]. The size
// that the file system tells is not believed: files of the kernel have none.
func Read(path string, limit int64) ([]byte, error) {
	file, err := Open(path)
	if errors.Is(err, ErrNotRegular) {
		return nil, fmt.Errorf("%w: remove it, and put the file in its place", err)
	}
	if err != nil {
		return nil, err
	}
	return readOpen(file, limit)
}

func readOpen(file *os.File, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: %w: it has more than %d bytes", file.Name(), ErrTooLarge, limit)
	}
	return data, nil
}

// SyncDir has the entries of a directory on disk when it returns.
func SyncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
