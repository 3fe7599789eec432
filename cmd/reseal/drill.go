package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/internal/drill"
)

func newDrillCommand() *cobra.Command {
	var options drill.Options
	var jsonFile string
	cmd := &cobra.Command{
		Use:   "drill NAME...|all",
		Short: "Rehearse attacks and accidents on a cluster of this machine",
		Long: `Drill plays attacks and accidents on clusters of real processes, tells what happens, and checks what the documentation promises. The exit
status is 0 only if every promise held. Nothing is left behind.`,
		Example: `  reseal drill list
  reseal drill stolen-disk
  reseal drill all --json -`,
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(names) == 0 {
				return cmd.Help()
			}
			drills, err := drill.Find(names)
			if err != nil {
				return err
			}
			return rehearse(cmd, drills, options, jsonFile)
		},
	}
	cmd.Flags().StringVar(&jsonFile, "json", "", "write the results as JSON to this file; - for standard output")
	cmd.Flags().BoolVar(&options.Keep, "keep", false, "leave the clusters' directories behind")
	cmd.AddCommand(newDrillListCommand(), newSoakCommand())
	return cmd
}

// rehearse plays drills, and tells what came of them.
func rehearse(cmd *cobra.Command, drills []drill.Drill, options drill.Options, jsonFile string) (err error) {
	if options.Program, err = os.Executable(); err != nil {
		return err
	}
	options.Out = cmd.OutOrStdout()
	if jsonFile == "-" {
		options.Out = cmd.ErrOrStderr()
	}
	results := drill.Run(cmd.Context(), drills, options)
	w := tabwriter.NewWriter(options.Out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w)
	for _, r := range results {
		fmt.Fprintf(w, "  %s\t%s\t%.0f s\t%d checks\n", r.Name, map[bool]string{true: "passed", false: "FAILED"}[r.Passed], r.Seconds, len(r.Checks))
	}
	err = errors.Join(w.Flush(), writeJSON(cmd.OutOrStdout(), jsonFile, results))
	if err == nil && (len(results) < len(drills) || !drill.Passed(results)) {
		err = errors.New("not every drill passed: what did not hold is marked BROKEN above")
	}
	return err
}

// newSoakCommand is a drill of a length that is chosen.
func newSoakCommand() *cobra.Command {
	var options drill.Options
	var jsonFile string
	var duration time.Duration
	cmd := &cobra.Command{
		Use: "soak", Short: "Run a cluster at four fifths of what it bears, for an hour, with bad clients, kills and rounds; nothing may grow",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if duration < time.Minute {
				return fmt.Errorf("--duration %v: choose a minute at least", duration)
			}
			return rehearse(cmd, []drill.Drill{drill.Soak(duration)}, options, jsonFile)
		},
	}
	cmd.Flags().DurationVar(&duration, "duration", time.Hour, "how long")
	cmd.Flags().StringVar(&jsonFile, "json", "", "write the results as JSON to this file; - for standard output")
	cmd.Flags().BoolVar(&options.Keep, "keep", false, "leave the cluster's directory behind")
	return cmd
}

func newDrillListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the drills", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(drill.All())
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
			for _, d := range drill.All() {
				fmt.Fprintf(w, "%s\t%s\n", d.Name, d.Summary)
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write the list as JSON")
	return cmd
}
