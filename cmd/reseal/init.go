package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/cluster"
)

func newInitCommand() *cobra.Command {
	plan := cluster.Plan{Rand: rand.Reader}
	var dir, kind, binary string
	cmd := &cobra.Command{
		Use:   "init --dir CLUSTER",
		Short: "Make a cluster on this machine: keystores, identities, the approved boot state, the genesis",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			plan.Dir, plan.Config = cluster.Dir(dir), cluster.ConfigFor(plan.Size)
			if plan.BasePort < 0 || plan.BasePort > 65535-bft.MaxReplicas {
				return fmt.Errorf("--base-port %d: choose 1 to %d, or 0 for free ports", plan.BasePort, 65535-bft.MaxReplicas)
			}
			var err error
			if plan.Keystore, err = cluster.ParseKind(kind); err != nil {
				return err
			}
			if plan.Binary, err = measuredBinary(binary); err != nil {
				return err
			}
			genesis, err := cluster.Create(cmd.Context(), plan)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "cluster %s: n=%d (f=%d Byzantine and c=%d down at once), %s keystores\n", genesis.ClusterID(), plan.Size.N(), plan.Size.F, plan.Size.C, kind)
			fmt.Fprintf(out, "run each replica:  reseal launch --dir %s\n", plan.Dir.Replica(1))
			fmt.Fprintf(out, "then use it:       reseal put --dir %s greeting hello\n", plan.Dir)
			return nil
		},
	}
	flags := cmd.Flags()
	addDir(cmd, &dir, "directory to make; it must be empty or not exist")
	flags.IntVar(&plan.Size.F, "f", 1, "Byzantine replicas tolerated")
	flags.IntVar(&plan.Size.C, "c", 1, "further replicas that may be down at once")
	flags.StringVar(&kind, "keystore", string(cluster.SWTPM), "where keys are kept: "+cluster.Kinds)
	flags.IntVar(&plan.BasePort, "base-port", 7300, "port of replica 1, followed by the others; 0: free ports")
	flags.DurationVar(&plan.RoundDeadline, "round-deadline", 30*time.Minute, "how long replicas may take to reboot and attest, when they are due")
	flags.DurationVar(&plan.RoundInterval, "round-interval", 0, "time from one recovery round to the next; 0: rounds begin by order")
	flags.BoolVar(&plan.AllowWear, "allow-wear", false, "accept a --round-interval that writes the TPMs' counters to death within five years")
	flags.StringVar(&binary, "binary", "", "program that the replicas will run, part of the approved boot state (default: this one)")
	return cmd
}

// measuredBinary is the program whose hash is measured: the named one, or this one.
func measuredBinary(named string) (string, error) {
	if named != "" {
		_, err := os.Stat(named)
		return named, err
	}
	return os.Executable()
}
