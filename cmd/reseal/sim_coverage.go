package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/internal/files"
)

// runCoverage runs the same campaigns in a build that counts what it comes by, and prints what of
// the core it never did.
func runCoverage(cmd *cobra.Command) error {
	root, err := moduleRoot()
	if err != nil {
		return errors.New("coverage is counted by a build of its own: run the command in Reseal's source tree")
	}
	dir, err := os.MkdirTemp("", "reseal-coverage-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary, counts, profile := filepath.Join(dir, "reseal"), filepath.Join(dir, "counts"), filepath.Join(dir, "profile")
	if err := os.Mkdir(counts, 0o700); err != nil {
		return err
	}
	goTool := func(args ...string) error {
		c := exec.CommandContext(cmd.Context(), "go", args...)
		c.Dir, c.Stderr = root, cmd.ErrOrStderr()
		return c.Run()
	}
	// The counters are written at the exit of a program whose main package has some too.
	if err := goTool("build", "-cover", "-covermode=set", "-coverpkg=./bft,./cmd/reseal", "-o", binary, "./cmd/reseal"); err != nil {
		return fmt.Errorf("build with counters: %w", err)
	}
	args := slices.DeleteFunc(slices.Clone(os.Args[1:]), func(a string) bool { return strings.HasPrefix(a, "--coverage") })
	campaign := exec.CommandContext(cmd.Context(), binary, args...)
	campaign.Env = append(os.Environ(), "GOCOVERDIR="+counts)
	campaign.Stdout, campaign.Stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
	if err := campaign.Run(); err != nil {
		return fmt.Errorf("in the build with counters: %w", err)
	}
	if err := goTool("tool", "covdata", "textfmt", "-i="+counts, "-o="+profile); err != nil {
		return fmt.Errorf("read the counters: %w", err)
	}
	data, err := files.Read(profile, maxProfile)
	if err != nil {
		return err
	}
	return tellUncovered(cmd.OutOrStdout(), root, data)
}

// maxProfile bounds a coverage profile, in bytes.
const maxProfile = 64 << 20

// branch is a block of statements that was never run.
type branch struct {
	file       string
	line       int
	statements int
}

// uncovered reads a coverage profile: after a first line, file:line.column,line.column statements count.
func uncovered(profile []byte) (never []branch, statements, missed int, err error) {
	lines := bufio.NewScanner(bytes.NewReader(profile))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "mode:") {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return nil, 0, 0, fmt.Errorf("a line of the profile is malformed: %q", line)
		}
		file, position, _ := strings.Cut(fields[0], ":")
		if path.Base(path.Dir(file)) != "bft" {
			continue
		}
		first, _, _ := strings.Cut(position, ".")
		at, err := strconv.Atoi(first)
		n, errN := strconv.Atoi(fields[1])
		if err = errors.Join(err, errN); err != nil {
			return nil, 0, 0, fmt.Errorf("a line of the profile is malformed: %q: %w", line, err)
		}
		statements += n
		if fields[2] == "0" && n > 0 {
			missed += n
			never = append(never, branch{filepath.Join("bft", filepath.Base(file)), at, n})
		}
	}
	slices.SortFunc(never, func(a, b branch) int { return cmp.Or(cmp.Compare(a.file, b.file), a.line-b.line) })
	if statements == 0 {
		return nil, 0, 0, errors.New("the build with counters has counted nothing")
	}
	return never, statements, missed, lines.Err()
}

// tellUncovered prints each branch of the core that was not reached, with the line that leads to it.
func tellUncovered(w io.Writer, root string, profile []byte) error {
	never, statements, missed, err := uncovered(profile)
	if err != nil {
		return err
	}
	sources := map[string][]string{}
	for _, b := range never {
		if sources[b.file] == nil {
			text, err := files.Read(filepath.Join(root, b.file), maxInput)
			if err != nil {
				return err
			}
			sources[b.file] = strings.Split(string(text), "\n")
		}
		if b.line > len(sources[b.file]) {
			return fmt.Errorf("%s has no line %d: the source changed meanwhile", b.file, b.line)
		}
		fmt.Fprintf(w, "%s:%d: %s\n", b.file, b.line, strings.TrimSpace(sources[b.file][b.line-1]))
	}
	fmt.Fprintf(w, "%d of %d statements of the core were never reached, in %d branches\n", missed, statements, len(never))
	return nil
}
