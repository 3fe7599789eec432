package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/recovery/governance"
)

func newEvidenceCommand() *cobra.Command {
	var dir, out string
	var replica uint16
	cmd := &cobra.Command{
		Use:   "evidence --dir CLUSTER --replica N --out DIR",
		Short: "Write the evidence that admitted a replica, for auditors",
		Long: `Evidence writes the last evidence of a replica that the log accepted, as f + 1 replicas tell it alike: the block that it answers, and the TPM's quote in
the files of tpm2-tools. The README beside it has the command that verifies the quote: an auditor needs nothing of this program.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if replica == 0 || out == "" {
				return errors.New("say whose evidence is to be written where: --replica N --out DIR")
			}
			genesis, err := governance.Load(cluster.Dir(dir).Genesis())
			if err != nil {
				return err
			}
			members, err := cluster.Dial(genesis)
			if err != nil {
				return err
			}
			defer members.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), askPatience)
			defer cancel()
			evidence, err := members.Evidence(ctx, bft.ReplicaID(replica))
			if err != nil {
				return err
			}
			if err := cluster.ExportEvidence(out, genesis, evidence); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "evidence of replica %d for epoch %d, round %d: see %s/README\n", evidence.Replica, evidence.Epoch, evidence.Round, out)
			return nil
		},
	}
	addDir(cmd, &dir, "directory of the cluster")
	cmd.Flags().Uint16Var(&replica, "replica", 0, "number of the replica")
	cmd.Flags().StringVar(&out, "out", "", "directory to make")
	return cmd
}
