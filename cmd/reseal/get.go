package main

import (
	"context"
	"encoding/json"
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
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "get --dir CLUSTER KEY",
		Short: "Read a key of the replicated store, verified under the group public key",
		Long: `Get reads a key in the order of all operations (linearizable). With --max-age it asks one replica instead, which proves its answer
against a certified state of at most that age.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if maxAge < 0 {
				return fmt.Errorf("--max-age %s: say how old the answer may be, such as 2s, or leave it out for one that is not old at all", maxAge)
			}
			return a.with(cmd.Context(), func(ctx context.Context, _ *cluster.Access, c *client.Client) error {
				value, err := get(ctx, c, args[0], maxAge)
				if err != nil {
					return err
				}
				return writeValue(cmd.OutOrStdout(), args[0], value, asJSON)
			})
		},
	}
	a.addFlags(cmd)
	cmd.Flags().DurationVar(&maxAge, "max-age", 0, "ask one replica, and accept a certified state of this age")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON, the value in base64")
	return cmd
}

func get(ctx context.Context, c *client.Client, key string, maxAge time.Duration) (value []byte, err error) {
	if maxAge == 0 {
		operation, err := kv.Get([]byte(key))
		if err != nil {
			return nil, err
		}
		return execute(ctx, c, key, operation)
	}
	found := false
	_, err = c.Query(ctx, []byte(key), maxAge, func(r *request.ReadReply) (err error) {
		value, found, err = kv.VerifyQuery(r.AppRoot, []byte(key), r.Answer, r.Proof)
		return err
	})
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
