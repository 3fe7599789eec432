package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// askPatience bounds how long commands wait for replicas that do not answer.
const askPatience = 5 * time.Second

func newStatusCommand() *cobra.Command {
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status --dir CLUSTER",
		Short: "Show how the cluster and each replica are: epoch, recovery round, shares, attestation",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			genesis, err := governance.Load(cluster.Dir(dir).Genesis())
			if err != nil {
				return err
			}
			members, err := cluster.Dial(genesis)
			if err != nil {
				return err
			}
			defer members.Close()
			return status(cmd.Context(), members, cmd.OutOrStdout(), asJSON)
		},
	}
	addDir(cmd, &dir, "directory of the cluster")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

// status shows what f + 1 replicas agree on, and what each says of itself. Without agreement it
// shows the latter and fails; it also fails when too few vote, or one runs twice.
func status(ctx context.Context, members *cluster.Members, out io.Writer, asJSON bool) error {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	answers := members.Ask(ctx)
	state, disagreement := members.Agreed(answers)
	var err error
	if asJSON {
		err = json.NewEncoder(out).Encode(struct {
			State    *cluster.State   `json:"state"`
			Replicas []cluster.Member `json:"replicas"`
		}{state, answers})
	} else {
		err = writeStatus(out, state, answers, members.ClocksOff(answers))
	}
	if err != nil {
		return err
	}
	if disagreement != nil {
		return disagreement
	}
	return errors.Join(members.Serves(answers), members.Single(answers))
}

func writeStatus(out io.Writer, state *cluster.State, answers []cluster.Member, clocks map[bft.ReplicaID]time.Duration) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	if state != nil {
		fmt.Fprintf(w, "epoch\t%d\n", state.Epoch)
		fmt.Fprintf(w, "group key\t%s\n", orNone(state.GroupKey))
		fmt.Fprintf(w, "round\t%d, %s", state.Round, state.Phase)
		if len(state.Due) > 0 {
			fmt.Fprintf(w, ", due: %v", state.Due)
		}
		fmt.Fprintln(w)
		for _, approved := range state.Approved {
			fmt.Fprintf(w, "approved\t%s\n", approved.Name)
		}
		if state.Note != "" {
			fmt.Fprintf(w, "last round\t%s\n", state.Note)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "REPLICA\tEPOCH\tHEIGHT\tVOTES\tSTATUS")
	for _, answer := range answers {
		said := "\t\t"
		if info := answer.Info; info != nil {
			said = fmt.Sprintf("%d\t%d\t%v", info.Epoch, info.Height, info.Voter)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\n", answer.ID, said, memberStatus(state, answer, cluster.Twice(answers, answer.ID), clocks[answer.ID]))
	}
	return w.Flush()
}

// memberStatus says what the log knows of a member, and what is wrong now.
func memberStatus(state *cluster.State, answer cluster.Member, twice []bft.ReplicaID, clock time.Duration) string {
	var text string
	if state != nil {
		m := state.Member(answer.ID)
		text = m.Status
		if m.RecoveredEpoch > 0 {
			text += fmt.Sprintf("; recovered for epoch %d", m.RecoveredEpoch)
		}
		if m.Attested {
			text += fmt.Sprintf(", attested as %s, reset count %d", m.BootState, m.ResetCount)
		}
		if d := m.Device; d != nil && d.ShownTime > 0 {
			text += fmt.Sprintf("; ran %s at %s; revocations reached its TPM: %s", orUnknown(d.Running), time.UnixMilli(d.ShownTime).UTC().Format(time.RFC3339), yesNo(d.RevocationReached))
		}
	}
	if len(twice) > 0 {
		text += fmt.Sprintf("; two processes ran as it within the last minute, say %v: stop both, and start the one that is meant to run", twice)
	}
	if clock != 0 {
		side := "ahead of"
		if clock < 0 {
			side = "behind"
		}
		text += fmt.Sprintf("; its clock is %v %s the others', and slows all: set it, and look after its time synchronization", clock.Abs().Round(time.Second), side)
	}
	switch {
	case answer.Info == nil:
		text += "; does not answer: " + answer.Err
	case answer.Unproven != "":
		text += "; it does not prove that it has its identity key, so nobody counts what it says: " + answer.Unproven
	case answer.Info.Diverged:
		text += "; its state diverged from the certified one"
	case answer.Info.Amnesia:
		text += "; does not vote before the next epoch: " + answer.Info.AmnesiaReason
	case state != nil && state.Member(answer.ID).HoldsShare && !answer.Info.Voter && answer.Info.Epoch == state.Epoch:
		text += "; does not vote: it has just started, or its share is not in order; if that lasts, read its log, and let it recover: reseal order round"
	}
	return text
}

func orUnknown(state string) string {
	if state == "" {
		return "a state that is not approved"
	}
	return state
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func orNone(s string) string {
	if s == "" {
		return "not generated yet"
	}
	return s
}
