package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Spec says what to run.
type Spec struct {
	// Name is used in errors, such as "replica 3".
	Name string
	Path string
	Args []string
	// Log is the file to which standard output and error are appended.
	Log string
}

// Group is a set of child processes that end together. Safe for concurrent use. The zero value is ready.
type Group struct {
	mu      sync.Mutex
	closed  bool
	running map[*Process]bool
}

// Process is a child process that was started.
type Process struct {
	name, log string
	logStart  int64 // where in the log file this process's output begins
	cmd       *exec.Cmd
	mu        sync.Mutex
	reaped    bool // the process id may belong to somebody else
	done      chan struct{}
	err       error // set before done is closed
}

// ErrClosed is returned by [Group.Start] after [Group.Close].
var ErrClosed = errors.New("stopped: no process is started any more")

// Start starts a process.
func (g *Group) Start(spec Spec) (*Process, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, ErrClosed
	}
	log, err := os.OpenFile(spec.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", spec.Name, err)
	}
	defer log.Close()
	start, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", spec.Name, err)
	}

	cmd := exec.Command(spec.Path, spec.Args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := onSpawner(cmd.Start); err != nil {
		return nil, fmt.Errorf("starting %s: %w", spec.Name, err)
	}
	p := &Process{name: spec.Name, log: spec.Log, logStart: start, cmd: cmd, done: make(chan struct{})}
	if g.running == nil {
		g.running = map[*Process]bool{}
	}
	g.running[p] = true
	go g.reap(p)
	return p, nil
}

func (g *Group) reap(p *Process) {
	p.reap()
	g.mu.Lock()
	delete(g.running, p)
	g.mu.Unlock()
	close(p.done)
}

// Close stops all processes, each within grace, and refuses to start more.
func (g *Group) Close(grace time.Duration) {
	g.mu.Lock()
	g.closed = true
	var running []*Process
	for p := range g.running {
		running = append(running, p)
	}
	g.mu.Unlock()

	var stopped sync.WaitGroup
	for _, p := range running {
		stopped.Go(func() { p.Stop(grace) })
	}
	stopped.Wait()
}

// PID returns the process id, which is also the id of its process group.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process is gone.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the process ended, once [Process.Done] is closed: nil for exit status 0.
func (p *Process) Err() error {
	<-p.done
	if p.err == nil {
		return nil
	}
	if last := p.lastLine(); last != "" {
		return fmt.Errorf("%s: %w: %s", p.name, p.err, last)
	}
	return fmt.Errorf("%s: %w", p.name, p.err)
}

// Kill ends the process and its group without warning and waits until it is gone.
func (p *Process) Kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// Stop asks the process to end, kills it when it has not after grace, and waits until it is gone.
func (p *Process) Stop(grace time.Duration) {
	p.signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.Kill()
	}
}

// signal reaches the whole group. That the group is gone already is no error.
func (p *Process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = syscall.Kill(-p.PID(), s)
	}
}

// reap waits until the process has ended, kills what it left in its group, and only then lets go of
// the process id.
func (p *Process) reap() {
	for unix.Waitid(unix.P_PID, p.PID(), nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	p.signal(syscall.SIGKILL)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = p.cmd.Wait()
	p.reaped = true
}

// lastLine returns the last line that the process wrote, at most 400 bytes.
func (p *Process) lastLine() string {
	file, err := os.Open(filepath.Clean(p.log))
	if err != nil {
		return ""
	}
	defer file.Close()
	end, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	const most = 4096
	start := max(p.logStart, end-most)
	text := make([]byte, end-start)
	if _, err := file.ReadAt(text, start); err != nil {
		return ""
	}
	lines := slices.DeleteFunc(strings.Split(string(bytes.TrimSpace(text)), "\n"), func(l string) bool { return l == "" })
	if len(lines) == 0 {
		return ""
	}
	last := lines[len(lines)-1]
	return last[:min(len(last), 400)]
}

// spawner is a goroutine that keeps its operating-system thread for good. A child with Pdeathsig
// dies with the *thread* that started it, so a child started from a goroutine at large might die
// when the runtime retires that thread (go.dev/issue/27505).
var spawner = sync.OnceValue(func() chan<- func() {
	jobs := make(chan func())
	go func() {
		runtime.LockOSThread()
		for job := range jobs {
			job()
		}
	}()
	return jobs
})

func onSpawner(start func() error) error {
	result := make(chan error)
	spawner() <- func() { result <- start() }
	return <-result
}
