//go:build unix

package files

import "syscall"

// noFollow refuses a symbolic link at the end of a path, and noWait does not wait for
// the other end of a pipe.
const noFollow, noWait = syscall.O_NOFOLLOW, syscall.O_NONBLOCK
