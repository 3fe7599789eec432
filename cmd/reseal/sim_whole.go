package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/internal/wholesim"
)

// runWhole runs whole nodes instead of cores.
func (f *simFlags) runWhole(cmd *cobra.Command) error {
	if f.nMax > 0 {
		return errors.New("--whole runs one size: give --f and --c instead of --n-max")
	}
	if f.options.Mutant == "list" {
		fmt.Fprintln(cmd.OutOrStdout(), strings.Join(wholesim.Mutants(), "\n"))
		return nil
	}
	o := wholesim.Options{F: f.options.F, C: f.options.C, Mutant: f.options.Mutant}
	if cmd.Flags().Changed("adversary") {
		o.Adversary = f.options.Adversary
	}
	if cmd.Flags().Changed("faults") {
		o.Faults = f.options.Faults
	}
	o = wholesim.Recipe(o)
	if o.Adversary == "" {
		o.Adversary = "all"
	}
	if f.trace {
		o.Trace = func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) }
		f.seeds = 1
	}
	root, err := moduleRoot()
	if err != nil {
		return errors.New("whole nodes are simulated by a test binary: run the command in Reseal's source tree, where it builds it")
	}
	binary, err := wholesim.Build(cmd.Context(), root, o.Mutant != "")
	if err != nil {
		return err
	}
	defer binary.Close()
	report, err := wholesim.Campaign(cmd.Context(), binary, f.seed, f.seeds, o, func(r wholesim.Result) { f.tellWhole(cmd, o, r) })
	if err != nil {
		return err
	}
	if cmd.Context().Err() != nil {
		return errors.New("interrupted")
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "f=%d c=%d n=%d: %d seeds, %d views, %d blocks, %d epochs, %d writes, %.1f hours, %d violations, %d stuck, %d beyond the bounds, "+
		"well again at most %v after the faults, hash %s, first seed the same again: %t, %.0f views a second, %.0f seeds an hour, %.1f s\n",
		o.F, o.C, 3*o.F+2*o.C+1, report.Seeds, report.Views, report.Blocks, report.Epochs, report.Writes, report.VirtualHours, report.Violations,
		report.Stuck, report.Beyond, time.Duration(report.SlowestMS)*time.Millisecond, report.Hash, report.Replayed, report.ViewsPerSec, report.SeedsPerHour, report.Seconds)
	if f.json != "" {
		if err := writeReport(cmd.OutOrStdout(), f.json, report); err != nil {
			return err
		}
	}
	return f.verdict([]sizedReport{{o.F, o.C, report.Report}})
}

// tellWhole prints a seed that failed: its plan, the last of what happened, and how to see it again.
func (f *simFlags) tellWhole(cmd *cobra.Command, o wholesim.Options, r wholesim.Result) {
	if r.Failure() == "" {
		return
	}
	faults := ""
	if o.Faults != nil {
		faults = " --faults " + cmp.Or(strings.Join(o.Faults, ","), "none")
	}
	command := fmt.Sprintf("reseal sim --whole --seed %d --seeds 1 --f %d --c %d --adversary %s%s --trace", r.Seed, o.F, o.C, o.Adversary, faults)
	if o.Mutant != "" {
		command += " --mutant " + o.Mutant
	}
	w := cmd.ErrOrStderr()
	fmt.Fprintf(w, "seed %d: %s\n", r.Seed, r.Failure())
	if len(r.Violations) > 0 && !f.trace {
		fmt.Fprintf(w, "  the plan:\n    %s\n  the last of what happened:\n", strings.ReplaceAll(r.Plan, "\n", "\n    "))
		for _, line := range slices.DeleteFunc(r.Trace, func(s string) bool { return s == "" }) {
			fmt.Fprintf(w, "    %s\n", line)
		}
	}
	fmt.Fprintf(w, "  see it again: %s\n", command)
}
