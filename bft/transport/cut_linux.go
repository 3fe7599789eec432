package transport

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// unanswered ends a connection when what was sent on it has not been acknowledged for
// [stallTimeout]. Keep-alives are for connections that are idle; on others the kernel tries again
// ever more seldom, so that after a long cut it looks up to two minutes late whether there is a
// network again, where a new connection looks every few seconds.
func unanswered(_, _ string, raw syscall.RawConn) error {
	var err error
	if failed := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(stallTimeout.Milliseconds()))
	}); failed != nil {
		return failed
	}
	return err
}
