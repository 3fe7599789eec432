package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/bft/client"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/internal/cluster"
)

func newPutCommand() *cobra.Command {
	var a access
	cmd := &cobra.Command{
		Use:   "put --dir CLUSTER KEY VALUE",
		Short: "Set a key of the replicated store; VALUE - reads standard input",
		Args:  needs("a key and a value", 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			value := []byte(args[1])
			if args[1] == "-" {
				var err error
				if value, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), kv.MaxValue+1)); err != nil {
					return err
				}
			}
			operation, err := kv.Put([]byte(args[0]), value)
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(ctx context.Context, _ *cluster.Access, c *client.Client) error {
				_, err := execute(ctx, c, args[0], operation)
				return err
			})
		},
	}
	a.addFlags(cmd)
	return cmd
}

// needs asks for so many arguments, and names them.
func needs(what string, n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("%s needs %s, and was given %d arguments: %s", cmd.Name(), what, len(args), cmd.UseLine())
		}
		return nil
	}
}

// execute has one operation of the store executed and returns the value in its result.
func execute(ctx context.Context, c *client.Client, key string, operation []byte) ([]byte, error) {
	results, err := c.Submit(ctx, operation)
	if err != nil {
		return nil, err
	}
	result, err := kv.ParseResult(results[0])
	if err != nil {
		return nil, err
	}
	if result.Status != kv.OK {
		return nil, fmt.Errorf("%s: %v", key, result.Status)
	}
	return result.Value, nil
}
