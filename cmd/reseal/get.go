package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/bft/client"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/internal/cluster"
)

func newGetCommand() *cobra.Command {
	var a access
	var maxAge time.Duration
	var ordered, asJSON bool
	cmd := &cobra.Command{
		Use:   "get --dir CLUSTER KEY",
		Short: "Read a key of the replicated store, verified under the group public key",
		Long: `Get reads a key in one of three ways; every answer is proven under the group public key.

  by itself     linearizable: the answer has every write that was acknowledged to anybody before. A quorum is asked how far the state is proven, then
                one replica for the answer: 2 round trips, n + 1 calls of some hundred bytes. Nothing is ordered or written for it.
  --max-age 2s  of one replica, which proves a state of at most that age by the clocks of both: 1 call. It may lack the last writes of others; it
                never goes back behind what this directory's clients have seen.
  --ordered     linearizable, as an operation in a block among all others: what a write costs, in time and on every replica's disk.`,
		Args: needs("a key", 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if maxAge < 0 {
				return fmt.Errorf("--max-age %s: say how old the answer may be, such as 2s, or leave it out for one that is not old at all", maxAge)
			}
			if ordered && maxAge > 0 {
				return errors.New("--ordered and --max-age are two ways to read: choose one")
			}
			return a.with(cmd.Context(), func(ctx context.Context, _ *cluster.Access, c *client.Client) error {
				value, err := get(ctx, c, args[0], ordered, maxAge)
				if err != nil {
					return err
				}
				return writeValue(cmd.OutOrStdout(), args[0], value, asJSON)
			})
		},
	}
	a.addFlags(cmd)
	cmd.Flags().DurationVar(&maxAge, "max-age", 0, "ask one replica, and accept a certified state of this age")
	cmd.Flags().BoolVar(&ordered, "ordered", false, "read as an operation in the order of all others")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON, the value in base64")
	return cmd
}

func get(ctx context.Context, c *client.Client, key string, ordered bool, maxAge time.Duration) (value []byte, err error) {
	if ordered {
		operation, err := kv.Get([]byte(key))
		if err != nil {
			return nil, err
		}
		return execute(ctx, c, key, operation)
	}
	found := false
	check := func(r *request.ReadReply) (err error) {
		value, found, err = kv.VerifyQuery(r.AppRoot, []byte(key), r.Answer, r.Proof)
		return err
	}
	if maxAge > 0 {
		_, err = c.Query(ctx, []byte(key), maxAge, check)
	} else {
		_, err = c.Read(ctx, []byte(key), check)
	}
	if err == nil && !found {
		err = fmt.Errorf("%s: %v", key, kv.NotFound)
	}
	return value, err
}

func writeValue(out io.Writer, key string, value []byte, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(out).Encode(struct {
			Key   string `json:"key"`
			Value []byte `json:"value"`
		}{key, value})
	}
	_, err := out.Write(append(value, '\n'))
	return err
}
