package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// temporary is where the program is built; tests set TMPDIR to directories of their own.
var temporary = os.TempDir()

// built is where the program under test is built, once, when a test first needs it.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	status := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(status)
}

// program builds the program and returns its path.
func program(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp(temporary, "reseal-test-"); built.err != nil {
			return
		}
		out, err := exec.Command("go", "build", "-o", filepath.Join(built.dir, "reseal"), ".").CombinedOutput()
		if err != nil {
			built.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	require.NoError(t, built.err)
	return filepath.Join(built.dir, "reseal")
}

// outcome is what a run of the program left.
type outcome struct {
	stdout, stderr string
	status         int
}

// run runs the program to its end.
func run(t *testing.T, arguments ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	return finish(t, exec.CommandContext(ctx, program(t), arguments...))
}

func finish(t *testing.T, cmd *exec.Cmd) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil {
		require.True(t, errors.As(err, &exit), "%v", err)
	}
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// succeeds demands exit status 0 and returns standard output.
func succeeds(t *testing.T, arguments ...string) string {
	t.Helper()
	o := run(t, arguments...)
	require.Zero(t, o.status, o.stderr)
	return o.stdout
}

// fails demands exit status 1 and one line on standard error that says all of the words.
func fails(t *testing.T, arguments []string, says ...string) {
	t.Helper()
	o := run(t, arguments...)
	demandOneLine(t, o, says...)
}

func demandOneLine(t *testing.T, o outcome, says ...string) {
	t.Helper()
	require.Equal(t, 1, o.status, o.stderr)
	require.Equal(t, 1, strings.Count(o.stderr, "\n"), "one line: %q", o.stderr)
	require.True(t, strings.HasPrefix(o.stderr, "reseal: "), o.stderr)
	for _, words := range says {
		require.Contains(t, o.stderr, words)
	}
}

// children are processes that a test starts and that end with it.
type children struct{ t *testing.T }

// start starts the program with its output in a file.
func (c children) start(log string, arguments ...string) *exec.Cmd {
	c.t.Helper()
	cmd := exec.Command(program(c.t), arguments...)
	file, err := os.Create(log)
	require.NoError(c.t, err)
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(c.t, cmd.Start())
	c.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may be gone
		_ = cmd.Wait()
	})
	return cmd
}

// mentioning lists the processes whose command line mentions a path, such as a test's own directory.
func mentioning(t *testing.T, path string) []int {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	var pids []int
	for _, line := range lines {
		text, err := os.ReadFile(line)
		if err != nil || !strings.Contains(string(text), path) {
			continue // gone meanwhile, or another's
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(line)))
		require.NoError(t, err)
		pids = append(pids, pid)
	}
	return pids
}
