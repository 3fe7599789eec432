package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/bft/client"
	"github.com/reseal-bft/reseal/internal/cluster"
)

// access are the flags of commands that use a cluster.
type access struct {
	dir     string
	timeout time.Duration
}

func (a *access) addFlags(cmd *cobra.Command) {
	addDir(cmd, &a.dir, "directory of the cluster")
	cmd.Flags().DurationVar(&a.timeout, "timeout", 30*time.Second, "how long to try")
}

// with connects to the cluster, and calls use with a client of it.
func (a *access) with(ctx context.Context, use func(context.Context, *cluster.Access, *client.Client) error) (err error) {
	if a.timeout <= 0 {
		return fmt.Errorf("--timeout %v: give a time to try", a.timeout)
	}
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	c, err := cluster.Connect(ctx, cluster.Dir(a.dir))
	if err != nil {
		return err
	}
	defer c.Close()
	user, err := c.NewClient(rand.Reader)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, user.Close()) }()
	if err = use(ctx, c, user); err != nil {
		// Perhaps nothing could be verified. The time is over by now.
		asked, cancel := context.WithTimeout(whole, askPatience)
		defer cancel()
		err = errors.Join(c.CheckGroupKey(asked), err)
	}
	return err
}
