package main

import (
	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/benchmarks/threshold"
)

func newBenchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure parts of Reseal on this machine",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(threshold.Command(), newBenchKeystoreCommand())
	return cmd
}
