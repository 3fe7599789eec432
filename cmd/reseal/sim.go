package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/sim"
)

// simFlags are the flags of reseal sim.
type simFlags struct {
	options sim.Options
	seeds   int
	seed    uint64
	nMax    int
	json    string
	trace   bool
	whole   bool
	// coverage prints the branches of the core that the campaigns do not reach.
	coverage bool
}

func newSimCommand() *cobra.Command {
	var f simFlags
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Run simulated clusters of the real consensus core, with Byzantine replicas and faults",
		Long: `Runs seeded clusters of the real consensus core in virtual time, with Byzantine replicas and faults of machines and network, and checks
the protocol's promises from outside. Every seed runs twice and must give the same hash. Exit status 0: nothing was found; with --mutant: the
planted bug was found.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.whole, "whole", false, "run whole nodes, with store, catch-up, recovery and handoffs, instead of cores")
	flags.IntVar(&f.seeds, "seeds", 100, "number of seeds")
	flags.Uint64Var(&f.seed, "seed", 1, "first seed")
	flags.IntVar(&f.options.F, "f", 1, "Byzantine replicas")
	flags.IntVar(&f.options.C, "c", 1, "further replicas that may be down")
	flags.IntVar(&f.nMax, "n-max", 0, "run every f and c with 3f + 2c + 1 replicas up to this number, instead of --f and --c")
	flags.StringVar(&f.options.Adversary, "adversary", "all", "what Byzantine replicas do: all, none, "+strings.Join(sim.Adversaries, ", "))
	flags.StringSliceVar(&f.options.Faults, "faults", sim.AllFaults, "faults of machines and network, separated by commas; none for none")
	flags.StringVar(&f.options.Mutant, "mutant", "", "plant a bug and find it; list names them")
	flags.StringVar(&f.json, "json", "", "write the report to this file, - for standard output")
	flags.BoolVar(&f.trace, "trace", false, "print everything that happens in the first seed")
	flags.BoolVar(&f.coverage, "coverage", false, "print the branches of the core that were not reached; in the source tree, where it builds a program that counts them")
	cmd.AddCommand(newWanCommand())
	return cmd
}

func (f *simFlags) run(cmd *cobra.Command) error {
	if slices.Equal(f.options.Faults, []string{"none"}) {
		f.options.Faults = []string{}
	}
	if f.seeds < 1 {
		return errors.New("--seeds must be at least 1")
	}
	switch {
	case f.coverage && (f.whole || f.options.Mutant != ""):
		return errors.New("--coverage is of the core without planted bugs: leave out --whole and --mutant")
	case f.coverage:
		return runCoverage(cmd)
	case f.whole:
		return f.runWhole(cmd)
	case f.options.Mutant != "" && !sim.Planted:
		return rerunWithMutants(cmd)
	case f.options.Mutant == "list":
		fmt.Fprintln(cmd.OutOrStdout(), strings.Join(sim.Mutants(), "\n"))
		return nil
	}
	f.unchosen(cmd)
	reports, err := f.campaigns(cmd)
	if err != nil {
		return err
	}
	if err := f.write(cmd.OutOrStdout(), reports); err != nil {
		return err
	}
	return f.verdict(reports)
}

// unchosen leaves it to a planted bug in what size of cluster, with which adversary and faults it
// is looked for, where the flags do not say.
func (f *simFlags) unchosen(cmd *cobra.Command) {
	if f.options.Mutant == "" {
		return
	}
	if !cmd.Flags().Changed("adversary") {
		f.options.Adversary = ""
	}
	if !cmd.Flags().Changed("faults") {
		f.options.Faults = nil
	}
	size := bft.Size{F: f.options.F, C: f.options.C}
	if !cmd.Flags().Changed("f") && !cmd.Flags().Changed("c") {
		f.options.F, f.options.C = 0, 0
	}
	f.options = sim.Recipe(f.options)
	if f.options.F == 0 && f.options.C == 0 {
		f.options.F, f.options.C = size.F, size.C
	}
	if f.options.Adversary == "" {
		f.options.Adversary = "all"
	}
	if f.options.Faults == nil {
		f.options.Faults = sim.AllFaults
	}
}

// sizedReport is the report on one size of cluster.
type sizedReport struct {
	F int `json:"f"`
	C int `json:"c"`
	sim.Report
}

// campaigns runs all sizes asked for.
func (f *simFlags) campaigns(cmd *cobra.Command) ([]sizedReport, error) {
	sizes := [][2]int{{f.options.F, f.options.C}}
	if f.nMax > 0 {
		sizes = nil
		for faulty := 1; 3*faulty+1 <= f.nMax; faulty++ {
			for down := 0; 3*faulty+2*down+1 <= f.nMax; down++ {
				sizes = append(sizes, [2]int{faulty, down})
			}
		}
	}
	var reports []sizedReport
	for _, size := range sizes {
		o := f.options
		o.F, o.C = size[0], size[1]
		if f.trace {
			o.Trace = func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) }
			f.seeds = 1
		}
		report, err := sim.Campaign(cmd.Context(), f.seed, f.seeds, o, nil)
		if err != nil {
			return nil, err
		}
		reports = append(reports, sizedReport{o.F, o.C, report})
		f.tell(cmd, reports[len(reports)-1])
		if cmd.Context().Err() != nil {
			return nil, errors.New("interrupted")
		}
	}
	return reports, nil
}

// tell prints a line on one size, and how to see a failure again.
func (f *simFlags) tell(cmd *cobra.Command, r sizedReport) {
	w := cmd.ErrOrStderr()
	fmt.Fprintf(w, "f=%d c=%d n=%d: %d seeds, %d views, %d blocks, %d epochs, %d violations, %d stuck, fast path %.0f%%, all executed at most %v after the faults, hash %s, %.1f s\n",
		r.F, r.C, 3*r.F+2*r.C+1, r.Seeds, r.Views, r.Blocks, r.Epochs, r.Violations, r.Stuck, 100*r.FastRatio,
		time.Duration(r.SlowestMS)*time.Millisecond, r.Hash, r.Seconds)
	for _, failure := range r.Failures {
		fmt.Fprintf(w, "  seed %d: %s\n    see it again: %s\n", failure.Seed, failure.Reason, f.replay(failure.Seed, r))
	}
}

// replay is the command that runs a seed again, with its trace.
func (f *simFlags) replay(seed uint64, r sizedReport) string {
	faults := strings.Join(f.options.Faults, ",")
	if faults == "" {
		faults = "none"
	}
	command := fmt.Sprintf("reseal sim --seed %d --seeds 1 --f %d --c %d --adversary %s --faults %s --trace", seed, r.F, r.C, f.options.Adversary, faults)
	if r.Mutant != "" {
		command += " --mutant " + r.Mutant
	}
	return command
}

// write writes the report: one object for one size, a list for several.
func (f *simFlags) write(stdout io.Writer, reports []sizedReport) error {
	if f.json == "" {
		return nil
	}
	var report any = reports
	if f.nMax == 0 {
		report = reports[0]
	}
	return writeReport(stdout, f.json, report)
}

// writeReport writes a report as JSON to a file, or to standard output.
func writeReport(stdout io.Writer, name string, report any) error {
	data, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if name == "-" {
		_, err = stdout.Write(data)
		return err
	}
	return os.WriteFile(name, data, 0o644)
}

// verdict makes the exit status.
func (f *simFlags) verdict(reports []sizedReport) error {
	failed := 0
	for _, r := range reports {
		failed += r.Violations + r.Stuck
	}
	switch {
	case f.options.Mutant != "" && failed == 0:
		return fmt.Errorf("the planted bug %s was not found within %d seeds: leave out --adversary and --faults, or try more seeds", f.options.Mutant, f.seeds)
	case f.options.Mutant == "" && failed > 0:
		return fmt.Errorf("%d seeds failed: run one of them with the command above", failed)
	}
	return nil
}

// rerunWithMutants runs the same command in a build that has the planted bugs: no other build does.
func rerunWithMutants(cmd *cobra.Command) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	args := append([]string{"run", "-tags", "mutants", "./cmd/reseal"}, os.Args[1:]...)
	again := exec.CommandContext(cmd.Context(), "go", args...)
	again.Dir = root
	again.Stdout, again.Stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
	if err := again.Run(); err != nil {
		return fmt.Errorf("in the build with planted bugs: %w", err)
	}
	return nil
}

// moduleRoot finds the source tree: planted bugs are compiled from it.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "bft", "mutants.go")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("this program has no planted bugs in it: run the command in Reseal's source tree, where it builds one that has (go run -tags mutants ./cmd/reseal sim --mutant NAME)")
		}
	}
}
