package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/keystore/swtpm"
)

func newLaunchCommand() *cobra.Command {
	var dir, binary, traces string
	var powered, measureOnly bool
	cmd := &cobra.Command{
		Use:   "launch --dir CLUSTER/replica-N",
		Short: "Measure a replica's binary, configuration and genesis into its TPM, then run it",
		Long: `Launch stands for the boot chain of a machine: it extends the SHA-256 of the replica's binary, of its config.json
and of the genesis without its approved states into PCR 14 of the replica's TPM, and only then starts the replica.

A software TPM of the cluster's directory is started for as long as the replica runs: so every launch is a reboot.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := measuredBinary(binary)
			if err != nil {
				return err
			}
			if measureOnly && powered {
				return errors.New("--measure-only powers the software TPM itself: leave --powered out")
			}
			return launch(cmd.Context(), cluster.ReplicaDir(dir), path, traces, powered, measureOnly)
		},
	}
	addDir(cmd, &dir, "directory of the replica")
	cmd.Flags().StringVar(&binary, "binary", "", "program to measure and run (default: this one)")
	addTrace(cmd, &traces)
	cmd.Flags().BoolVar(&powered, "powered", false, "the replica's software TPM runs already: replace this process by the replica")
	cmd.Flags().BoolVar(&measureOnly, "measure-only", false, "boot the software TPM and run no replica, until it is interrupted (for reseal keystore quote)")
	return cmd
}

func launch(ctx context.Context, dir cluster.ReplicaDir, binary, traces string, powered, measureOnly bool) (err error) {
	replica, err := cluster.ReadReplica(dir)
	if err != nil {
		return err
	}
	var device string
	if !powered && dir.HasTPM() {
		tpm, err := swtpm.Start(ctx, dir.TPM())
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, tpm.Close()) }()
		device = tpm.URI()
	}
	if err := measure(ctx, dir, replica, binary); err != nil {
		return err
	}
	if measureOnly {
		if device == "" {
			return fmt.Errorf("%s has no software TPM: there is nothing to measure into", dir)
		}
		fmt.Fprintf(os.Stderr, "reseal: replica %d is measured, and not run: its TPM is at %s until this is interrupted\n", replica.ID, device)
		<-ctx.Done()
		return nil
	}
	arguments := []string{binary, "replica", "--dir", string(dir)}
	if traces != "" {
		arguments = append(arguments, "--trace", traces)
	}
	if powered || !dir.HasTPM() {
		return fmt.Errorf("running %s: %w", binary, syscall.Exec(binary, arguments, os.Environ()))
	}
	return runUntil(ctx, arguments)
}

// measure extends what is about to run into the replica's TPM; with another keystore there is
// nothing to extend it into.
func measure(ctx context.Context, dir cluster.ReplicaDir, replica *cluster.Replica, binary string) error {
	measured, err := cluster.MeasureBoot(ctx, dir, replica, binary)
	if err == nil && !measured {
		fmt.Fprintf(os.Stderr, "reseal: replica %d keeps its keys in %s: nothing is measured or attested\n", replica.ID, replica.Keystore)
	}
	return err
}

// runUntil runs a program until it ends by itself, or, when ctx ends, asks it to.
func runUntil(ctx context.Context, arguments []string) error {
	child := exec.CommandContext(ctx, arguments[0], arguments[1:]...)
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	// A Ctrl-C of the terminal reaches this process alone, and the child through it.
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	child.Cancel = func() error { return child.Process.Signal(syscall.SIGTERM) }
	err := child.Run()
	if ctx.Err() != nil {
		return nil
	}
	return err
}
