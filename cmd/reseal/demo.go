package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/internal/demo"
)

func newDemoCommand() *cobra.Command {
	var options demo.Options
	var kind, jsonFile string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a cluster that heals itself, on this machine, and tell what happens",
		Long: `Demo starts a cluster of processes on this machine, each with a TPM of its own, puts it under load, recovers every replica in turn, tampers with one,
crashes another, and checks everything. The exit status is 0 only if all of it held. Nothing is left behind.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if options.Keystore, err = cluster.ParseKind(kind); err != nil {
				return err
			}
			if options.Program, err = os.Executable(); err != nil {
				return err
			}
			options.Out = cmd.OutOrStdout()
			if jsonFile == "-" {
				options.Out = cmd.ErrOrStderr()
			}
			report, err := demo.Run(cmd.Context(), options)
			if report == nil {
				return err
			}
			if report.Seconds > 0 {
				fmt.Fprintln(options.Out)
				err = errors.Join(err, report.WriteTable(options.Out))
			}
			return errors.Join(err, writeJSON(cmd.OutOrStdout(), jsonFile, report))
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&options.Size.F, "f", 1, "Byzantine replicas tolerated")
	flags.IntVar(&options.Size.C, "c", 1, "further replicas that may be down at once")
	flags.StringVar(&kind, "keystore", string(cluster.SWTPM), "where keys are kept: "+cluster.Kinds)
	flags.DurationVar(&options.Duration, "duration", 5*time.Second, "how long the load runs undisturbed, for comparison")
	flags.IntVar(&options.Clients, "clients", 4, "concurrent clients")
	flags.StringVar(&options.Input, "input", "", "directory whose files are put into the store (default: the machine's CA certificates)")
	flags.StringVar(&options.Dir, "dir", "", "directory for the cluster (default: a temporary one)")
	flags.BoolVar(&options.Keep, "keep", false, "leave the directory behind")
	flags.StringVar(&jsonFile, "json", "", "write the report as JSON to this file; - for standard output")
	return cmd
}

// writeJSON writes a report to a file, to standard output if it is named -, or nowhere.
func writeJSON(stdout io.Writer, file string, report any) error {
	if file == "" {
		return nil
	}
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if file == "-" {
		_, err = stdout.Write(text)
		return err
	}
	return os.WriteFile(file, text, 0o644)
}
