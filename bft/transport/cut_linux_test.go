package transport

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A cut network is noticed while frames wait, and the connections come back with it: the kernel on
// its own would hold on to them for a quarter of an hour. In a network namespace of its own, whose
// loopback is cut.
func TestACutIsNoticedWhileFramesWait(t *testing.T) {
	const inside = "RESEAL_TEST_IN_NAMESPACE"
	if os.Getenv(inside) == "" {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		child.Env = append(os.Environ(), inside+"=1")
		child.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWNET | syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		out, err := child.CombinedOutput()
		if errors.Is(err, syscall.EPERM) {
			t.Log("network namespaces are not permitted here: a cut is not tested")
			return
		}
		require.NoError(t, err, "%s", out)
		return
	}
	stallTimeout = 2 * time.Second
	loopback(t, true)
	members := startAll(t, 2)
	loopback(t, false)
	members[0].Send(2, []byte("lost"))
	eventually(t, func() bool { return len(members[0].Connected()) == 0 }, "the cut is noticed")
	loopback(t, true)
	eventually(t, func() bool { return len(members[0].Connected()) == 1 }, "the connection is back")
	members[0].Send(2, []byte("hello"))
	for members[1].next(t).data != "hello" {
	}
}

// loopback brings the loopback device up or down.
func loopback(t *testing.T, up bool) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	require.NoError(t, err)
	request.SetUint16(0)
	if up {
		request.SetUint16(unix.IFF_UP)
	}
	require.NoError(t, unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request))
}
