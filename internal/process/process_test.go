package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func shell(t *testing.T, script string) Spec {
	return Spec{Name: "child", Path: "/bin/sh", Args: []string{"-c", script}, Log: filepath.Join(t.TempDir(), "log")}
}

// gone waits until no process has the given id, or it is a zombie that waits for its reaper.
func gone(t *testing.T, pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		return err != nil || strings.Contains(string(stat), ") Z ")
	}, time.Minute, time.Millisecond)
}

// written waits until the file holds a number, as a child writes it.
func written(t *testing.T, file string) int {
	t.Helper()
	var number int
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		number, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil
	}, time.Minute, time.Millisecond)
	return number
}

func TestErrSaysWhatTheProcessSaidLast(t *testing.T) {
	var g Group
	spec := shell(t, "echo earlier; echo the port is busy >&2; exit 3")
	require.NoError(t, os.WriteFile(spec.Log, []byte("of a process before\n"), 0o600))
	p, err := g.Start(spec)
	require.NoError(t, err)
	require.EqualError(t, p.Err(), "child: exit status 3: the port is busy")

	quiet, err := g.Start(shell(t, "exit 1"))
	require.NoError(t, err)
	require.EqualError(t, quiet.Err(), "child: exit status 1")
}

func TestKillReachesGrandchildren(t *testing.T) {
	var g Group
	file := filepath.Join(t.TempDir(), "pid")
	p, err := g.Start(shell(t, "sleep 1000 & echo $! > "+file+"; wait"))
	require.NoError(t, err)
	grandchild := written(t, file)
	p.Kill()
	require.Error(t, p.Err())
	gone(t, grandchild)
}

func TestWhatAProcessLeavesBehindIsKilled(t *testing.T) {
	var g Group
	file := filepath.Join(t.TempDir(), "pid")
	p, err := g.Start(shell(t, "sleep 1000 & echo $! > "+file))
	require.NoError(t, err)
	require.NoError(t, p.Err())
	gone(t, written(t, file))
	p.Kill() // gone already: no effect
}

func TestStopIsGentleAndThenFirm(t *testing.T) {
	var g Group
	file := filepath.Join(t.TempDir(), "pid")
	gentle, err := g.Start(shell(t, "trap 'exit 0' TERM; echo $$ > "+file+"; while :; do sleep 0.01; done"))
	require.NoError(t, err)
	written(t, file)
	gentle.Stop(10 * time.Second)
	require.NoError(t, gentle.Err())

	stubborn := filepath.Join(t.TempDir(), "pid")
	firm, err := g.Start(shell(t, "trap '' TERM; echo $$ > "+stubborn+"; while :; do sleep 0.01; done"))
	require.NoError(t, err)
	written(t, stubborn)
	firm.Stop(10 * time.Millisecond)
	require.Error(t, firm.Err())
}

func TestCloseStopsAllAndStartsNoMore(t *testing.T) {
	var g Group
	var children []*Process
	for range 3 {
		p, err := g.Start(shell(t, "sleep 1000"))
		require.NoError(t, err)
		children = append(children, p)
	}
	g.Close(time.Second)
	for _, p := range children {
		<-p.Done()
		gone(t, p.PID())
	}
	_, err := g.Start(shell(t, "true"))
	require.ErrorIs(t, err, ErrClosed)
}

func TestStartNamesWhatIsMissing(t *testing.T) {
	var g Group
	_, err := g.Start(Spec{Name: "replica 1", Path: "/nonexistent/reseal", Log: filepath.Join(t.TempDir(), "log")})
	require.ErrorContains(t, err, "starting replica 1")
	_, err = g.Start(Spec{Name: "replica 1", Path: "/bin/true", Log: "/nonexistent/log"})
	require.ErrorContains(t, err, "log of replica 1")
}

// TestChildDiesWithItsParent runs this test binary as a parent that starts a child and is then
// killed without warning.
func TestChildDiesWithItsParent(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	parent := exec.Command(os.Args[0], "-test.run=^TestParent$")
	parent.Env = append(os.Environ(), "PROCESS_TEST_PID_FILE="+file)
	require.NoError(t, parent.Start())
	child := written(t, file)
	require.NoError(t, syscall.Kill(child, 0))
	require.NoError(t, parent.Process.Kill())
	require.Error(t, parent.Wait())
	gone(t, child)
}

// TestParent is the parent of TestChildDiesWithItsParent; on its own it does nothing.
func TestParent(t *testing.T) {
	file := os.Getenv("PROCESS_TEST_PID_FILE")
	if file == "" {
		return
	}
	var g Group
	p, err := g.Start(shell(t, "echo $$ > "+file+"; exec sleep 1000"))
	require.NoError(t, err)
	<-p.Done()
}
