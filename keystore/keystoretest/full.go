package keystoretest

import (
	"syscall"

	"github.com/reseal-bft/reseal/keystore/statedir"
)

// Full is a disk that creates files but has no room for their content.
func Full(fs statedir.FS) statedir.FS { return fullFS{fs} }

type fullFS struct{ statedir.FS }

func (f fullFS) Create(name string) (statedir.File, error) {
	file, err := f.FS.Create(name)
	return fullFile{file}, err
}

type fullFile struct{ statedir.File }

func (fullFile) Write([]byte) (int, error) { return 0, syscall.ENOSPC }
