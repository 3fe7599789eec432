package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
)

// The main goroutine keeps the main thread: a process that launch replaces by the replica is to die
// with its parent, and that wish belongs to the thread that calls exec.
func init() { runtime.LockOSThread() }

func main() {
	// The first signal ends the command in order, the second at once.
	ctx, restore := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, restore)
	if err := newRootCommand().ExecuteContext(ctx); err != nil {
		text := oneLine(err)
		if errors.Is(err, syscall.ENOSPC) {
			text += ": free some space and try again"
		}
		fmt.Fprintln(os.Stderr, "reseal: "+text)
		os.Exit(1)
	}
}

// oneLine puts joined errors on one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
