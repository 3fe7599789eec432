package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/bft/budget"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/internal/trace"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery"
	"github.com/reseal-bft/reseal/recovery/governance"
)

func newReplicaCommand() *cobra.Command {
	var dir, traces string
	cmd := &cobra.Command{
		Use:   "replica --dir CLUSTER/replica-N",
		Short: "Run a replica that was measured already (see launch), until it is interrupted",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runReplica(cmd.Context(), cluster.ReplicaDir(dir), cmd.ErrOrStderr(), traces, nil)
		},
	}
	addDir(cmd, &dir, "directory of the replica")
	addTrace(cmd, &traces)
	return cmd
}

// addTrace is for the drills, which judge afterwards what replicas did.
func addTrace(cmd *cobra.Command, traces *string) {
	cmd.Flags().StringVar(traces, "trace", "", "directory in which to record what the replica's consensus core does")
	_ = cmd.Flags().MarkHidden("trace") // it exists
}

// runReplica runs a node until ctx ends or it fails. Its core is recorded in the directory traces,
// unless that is empty. Cast may put an actor in its place; nil: a replica as it should be.
func runReplica(ctx context.Context, dir cluster.ReplicaDir, logs io.Writer, traces string, cast func(*recovery.NodeConfig)) (err error) {
	settings, err := cluster.ReadReplica(dir)
	if err != nil {
		return err
	}
	config, err := cluster.ReadConfig(dir)
	if err != nil {
		return err
	}
	genesis, err := governance.Load(settings.Genesis)
	if err != nil {
		return err
	}
	if err := keystore.DisableDumps(); err != nil { // shares must not end up in a core file
		return err
	}
	ks, err := cluster.OpenKeystore(ctx, dir, settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ks.Close()) }()
	log := slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: config.LogLevel})).With("replica", settings.ID)
	memory, err := divideMemory(dir, config, genesis, log)
	if err != nil {
		return err
	}
	state, err := kv.Open(dir.State(), kv.Options{Memory: memory.State, Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	node := recovery.NodeConfig{
		Genesis: genesis, Self: settings.ID, Dir: dir.Store(), Listen: settings.Listen, Keystore: ks, Application: state, Memory: memory, Log: log,
	}
	if traces != "" {
		recorder, err := trace.NewRecorder(traces, func(err error) { node.Log.Error("the trace ends here", "error", err) })
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, recorder.Close()) }()
		node.Observe = recorder.Observe
	}
	if cast != nil {
		cast(&node)
	}
	running, err := recovery.Start(ctx, node)
	if err != nil {
		return err
	}
	return errors.Join(running.Wait(), running.Close())
}

// divideMemory divides the memory limit among the parts of the replica, and gives Go's heap what is
// left of it beside what does not come from Go.
func divideMemory(dir cluster.ReplicaDir, config *cluster.Config, genesis *governance.Genesis, log *slog.Logger) (*budget.Table, error) {
	limit := config.MemoryLimitMiB << 20
	memory, err := budget.Of(limit, genesis.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir.Config(), err)
	}
	if limit > 0 {
		debug.SetMemoryLimit(memory.InGo())
	}
	for _, item := range memory.Items() {
		log.Debug("memory", "for", item.Name, "kib", item.Bytes>>10, "of_these", item.Of)
	}
	return memory, nil
}
