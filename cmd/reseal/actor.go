package main

import (
	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/internal/actor"
	"github.com/reseal-bft/reseal/internal/cluster"
)

// newActorCommand runs a replica that misbehaves, for the drills. It measures itself into the TPM
// as launch does: an intruder would too.
func newActorCommand() *cobra.Command {
	var dir, conduct, binary, traces string
	cmd := &cobra.Command{
		Use: "actor --dir CLUSTER/replica-N --conduct FILE", Short: "Run a replica that misbehaves as a file says, for drills",
		Hidden: true, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := actor.New(cmd.Context(), conduct)
			if err != nil {
				return err
			}
			where := cluster.ReplicaDir(dir)
			replica, err := cluster.ReadReplica(where)
			if err != nil {
				return err
			}
			path, err := measuredBinary(binary)
			if err != nil {
				return err
			}
			if err := measure(cmd.Context(), where, replica, path); err != nil {
				return err
			}
			return runReplica(cmd.Context(), where, cmd.ErrOrStderr(), traces, a.Cast)
		},
	}
	addDir(cmd, &dir, "directory of the replica")
	cmd.Flags().StringVar(&conduct, "conduct", "", "file that says how it behaves")
	cmd.Flags().StringVar(&binary, "binary", "", "program to measure (default: this one)")
	addTrace(cmd, &traces)
	return cmd
}
