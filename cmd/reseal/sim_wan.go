package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/bft/sim"
)

func newWanCommand() *cobra.Command {
	var (
		o    sim.WanOptions
		n    []int
		file string
	)
	cmd := &cobra.Command{
		Use:   "wan",
		Short: "Compute finality latencies between cloud regions, beside HotStuff and PBFT",
		Long: `Runs the real consensus core in virtual time on measured round-trip times between ` + strings.Join(sim.Regions, ", ") + `,
with all replicas up, with one in recovery, and with the fast path lost; and computes chained HotStuff and PBFT on the same matrix.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runWan(cmd, o, n, file) },
	}
	flags := cmd.Flags()
	flags.IntSliceVar(&n, "n", []int{4, 16, 64, 100}, "numbers of replicas")
	flags.IntVar(&o.Regions, "regions", 5, "number of regions")
	flags.IntVar(&o.BlockBytes, "block", 64<<10, "bytes of a block")
	flags.IntVar(&o.MegabitsPerSecond, "bandwidth", 1000, "megabits per second that a replica can send")
	flags.IntVar(&o.Blocks, "blocks", 20, "blocks to measure")
	flags.StringVar(&file, "json", "", "write the table to this file, - for standard output")
	return cmd
}

func runWan(cmd *cobra.Command, o sim.WanOptions, sizes []int, file string) error {
	rows := []sim.WanRow{}
	w := cmd.ErrOrStderr()
	fmt.Fprintf(w, "milliseconds from a proposal of %d bytes to finality at a replica, medians\n", o.BlockBytes)
	fmt.Fprintf(w, "%5s %3s %3s %8s %12s %8s %10s %8s\n", "n", "f", "c", "fast", "in recovery", "slow", "HotStuff", "PBFT")
	for _, n := range sizes {
		o.N = n
		row, err := sim.Wan(o)
		if err != nil {
			return err
		}
		rows = append(rows, row)
		fmt.Fprintf(w, "%5d %3d %3d %8.0f %12.0f %8.0f %10.0f %8.0f\n", row.N, row.F, row.C, row.FastMS, row.RecoveryMS, row.SlowMS, row.HotStuffMS, row.PBFTMS)
	}
	if file == "" {
		return nil
	}
	return writeReport(cmd.OutOrStdout(), file, struct {
		Rows []sim.WanRow `json:"rows"`
	}{rows})
}
