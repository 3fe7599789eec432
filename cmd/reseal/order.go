package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/client"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/recovery/governance"
)

func newOrderCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "order",
		Short: "Give the cluster an operator's order, signed with the key in its directory",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newOrderRound(), newOrderApprove(), newOrderRevoke(), newOrderQuarantine(), newOrderRelease())
	return cmd
}

// newOrder makes the command for one kind of order. Body is called when the flags are parsed.
func newOrder(use, short string, body func(context.Context, cluster.Dir) (governance.OrderBody, error)) *cobra.Command {
	var a access
	cmd := &cobra.Command{
		Use: use, Short: short, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			order, err := body(cmd.Context(), cluster.Dir(a.dir))
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(ctx context.Context, access *cluster.Access, c *client.Client) error {
				return access.Order(ctx, c, order)
			})
		},
	}
	a.addFlags(cmd)
	return cmd
}

func newOrderRound() *cobra.Command {
	var due []uint
	cmd := newOrder("round --dir CLUSTER", "Start a recovery round: reboot the replicas that are due in it",
		func(context.Context, cluster.Dir) (governance.OrderBody, error) {
			order := &governance.StartRound{}
			for _, id := range due {
				if id == 0 || id > bft.MaxReplicas {
					return nil, fmt.Errorf("--due %d: replicas are numbered 1 to n", id)
				}
				order.Due = append(order.Due, bft.ReplicaID(id))
			}
			return order, nil
		})
	cmd.Flags().UintSliceVar(&due, "due", nil, "replicas to recover (default: those whose turn it is)")
	return cmd
}

func newOrderApprove() *cobra.Command {
	var name, binary string
	cmd := newOrder("approve --dir CLUSTER --name NAME --binary PROGRAM", "Approve the boot state of another binary, before replicas are rebooted into it",
		func(ctx context.Context, dir cluster.Dir) (governance.OrderBody, error) {
			if name == "" || binary == "" {
				return nil, errors.New("say what is approved: --name NAME --binary PROGRAM")
			}
			state, err := cluster.ApproveBinary(ctx, rand.Reader, dir, name, binary)
			return &governance.ApproveState{State: state}, err
		})
	cmd.Flags().StringVar(&name, "name", "", "name of the boot state")
	cmd.Flags().StringVar(&binary, "binary", "", "program that replicas will run")
	return cmd
}

func newOrderRevoke() *cobra.Command {
	var name string
	cmd := newOrder("revoke --dir CLUSTER --name NAME", "No longer admit a boot state",
		func(context.Context, cluster.Dir) (governance.OrderBody, error) {
			return &governance.RevokeState{Name: name}, nil
		})
	cmd.Flags().StringVar(&name, "name", "", "name of the boot state")
	return cmd
}

func newOrderQuarantine() *cobra.Command {
	var replica uint16
	var reason string
	cmd := newOrder("quarantine --dir CLUSTER --replica N --reason WORDS", "Keep a replica from receiving any further share",
		func(context.Context, cluster.Dir) (governance.OrderBody, error) {
			return &governance.Quarantine{Replica: bft.ReplicaID(replica), Reason: reason}, nil
		})
	cmd.Flags().Uint16Var(&replica, "replica", 0, "number of the replica")
	cmd.Flags().StringVar(&reason, "reason", "", "why, in a few words")
	return cmd
}

func newOrderRelease() *cobra.Command {
	var replica uint16
	cmd := newOrder("release --dir CLUSTER --replica N", "End a quarantine: the replica may recover",
		func(context.Context, cluster.Dir) (governance.OrderBody, error) {
			return &governance.Release{Replica: bft.ReplicaID(replica)}, nil
		})
	cmd.Flags().Uint16Var(&replica, "replica", 0, "number of the replica")
	return cmd
}
