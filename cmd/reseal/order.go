package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"

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

// orderMaker makes an order once the cluster is connected.
type orderMaker func(context.Context, *cluster.Access) (governance.OrderBody, error)

// simply is the maker of an order that needs to know nothing of the cluster.
func simply(body governance.OrderBody) orderMaker {
	return func(context.Context, *cluster.Access) (governance.OrderBody, error) { return body, nil }
}

// newOrder makes the command for one kind of order. Prepare is called when the flags are parsed.
func newOrder(use, short string, prepare func(cluster.Dir) (orderMaker, error)) *cobra.Command {
	var a access
	cmd := &cobra.Command{
		Use: use, Short: short, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			make, err := prepare(cluster.Dir(a.dir))
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(ctx context.Context, access *cluster.Access, c *client.Client) error {
				order, err := make(ctx, access)
				if err != nil {
					return err
				}
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
		func(cluster.Dir) (orderMaker, error) {
			order := &governance.StartRound{}
			for _, id := range due {
				if id == 0 || id > bft.MaxReplicas {
					return nil, fmt.Errorf("--due %d: replicas are numbered 1 to n", id)
				}
				order.Due = append(order.Due, bft.ReplicaID(id))
			}
			return simply(order), nil
		})
	cmd.Flags().UintSliceVar(&due, "due", nil, "replicas to recover (default: those whose turn it is)")
	return cmd
}

func newOrderApprove() *cobra.Command {
	var a cluster.Approval
	var counters map[string]int64
	cmd := newOrder("approve --dir CLUSTER --name NAME --binary PROGRAM", "Approve the boot state of another binary, before replicas are rebooted into it",
		func(dir cluster.Dir) (orderMaker, error) {
			if a.Name == "" {
				return nil, errors.New("say what is approved: --name NAME --binary PROGRAM")
			}
			a.Counters = map[bft.ReplicaID]uint64{}
			for replica, counter := range counters {
				id, err := strconv.ParseUint(replica, 10, 16)
				if err != nil || counter < 0 {
					return nil, fmt.Errorf("--counter %s=%d: write REPLICA=VALUE", replica, counter)
				}
				a.Counters[bft.ReplicaID(id)] = uint64(counter)
			}
			if a.Config == "" {
				a.Config = dir.Replica(1).Config()
			}
			return func(ctx context.Context, access *cluster.Access) (governance.OrderBody, error) {
				state, err := access.State(ctx)
				if err != nil {
					return nil, err
				}
				return cluster.Approve(rand.Reader, dir, access.Genesis, state, a)
			}, nil
		})
	cmd.Long = `Approve admits a boot state in the log and on every TPM. The replicas that are up hand the approval to their TPMs at once, the others when they are back.
It needs the cluster's directory with genesis.json and the operators' keys, and no replica's device.

For a state that is approved already leave --binary out: its approvals are made anew, for TPMs whose approval counter somebody has raised.`
	cmd.Flags().StringVar(&a.Name, "name", "", "name of the boot state")
	cmd.Flags().StringVar(&a.Binary, "binary", "", "program that replicas will run")
	cmd.Flags().StringVar(&a.Config, "config", "", "measured configuration (default: config.json of replica 1)")
	cmd.Flags().StringToInt64Var(&counters, "counter", nil, "REPLICA=VALUE of an approval counter that somebody raised, from \"reseal keystore status\" on that machine")
	cmd.Flags().StringVar(&a.Like, "like", "", "approved boot state with the same firmware, boot loader and kernel (default: the first)")
	return cmd
}

func newOrderRevoke() *cobra.Command {
	var name string
	cmd := newOrder("revoke --dir CLUSTER --name NAME", "No longer admit a boot state: no replica recovers in it, and no TPM opens anything in it",
		func(dir cluster.Dir) (orderMaker, error) {
			if name == "" {
				return nil, errors.New("say which boot state is revoked: --name NAME; `reseal status` lists them")
			}
			return func(ctx context.Context, access *cluster.Access) (governance.OrderBody, error) {
				state, err := access.State(ctx)
				if err != nil {
					return nil, err
				}
				return cluster.Revoke(rand.Reader, dir, access.Genesis, state, name)
			}, nil
		})
	cmd.Flags().StringVar(&name, "name", "", "name of the boot state")
	return cmd
}

func newOrderQuarantine() *cobra.Command {
	var replica uint16
	var reason string
	cmd := newOrder("quarantine --dir CLUSTER --replica N --reason WORDS", "Keep a replica from receiving any further share",
		func(cluster.Dir) (orderMaker, error) {
			return simply(&governance.Quarantine{Replica: bft.ReplicaID(replica), Reason: reason}), nil
		})
	cmd.Flags().Uint16Var(&replica, "replica", 0, "number of the replica")
	cmd.Flags().StringVar(&reason, "reason", "", "why, in a few words")
	return cmd
}

func newOrderRelease() *cobra.Command {
	var replica uint16
	cmd := newOrder("release --dir CLUSTER --replica N", "End a quarantine: the replica may recover",
		func(cluster.Dir) (orderMaker, error) {
			return simply(&governance.Release{Replica: bft.ReplicaID(replica)}), nil
		})
	cmd.Flags().Uint16Var(&replica, "replica", 0, "number of the replica")
	return cmd
}
