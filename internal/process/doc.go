// Package process runs child processes of which nothing is left behind: each has a process group of
// its own, dies with its parent whatever way the parent ends, and writes its output to a file. They
// are signalled by process id only, and every Kill and Stop waits until the process is gone. Linux
// only.
package process
