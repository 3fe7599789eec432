package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "reseal",
		Short: "Byzantine fault-tolerant replication that heals itself",
		Args:  noArguments,
		// Errors are printed once, by main.
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: see `%s --help`", err, cmd.CommandPath())
	})
	root.AddCommand(
		newInitCommand(),
		newLaunchCommand(),
		newReplicaCommand(),
		newDemoCommand(),
		newDrillCommand(),
		newActorCommand(),
		newPutCommand(),
		newGetCommand(),
		newLoadCommand(),
		newStatusCommand(),
		newOrderCommand(),
		newEvidenceCommand(),
		newKeystoreCommand(),
		newSimCommand(),
		newBenchCommand(),
		newVersionCommand(),
	)
	return root
}

// noArguments refuses arguments, and says where to look.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q is not known here: see `%s --help`", args[0], cmd.CommandPath())
	}
	return nil
}

// addDir adds the flag --dir, which the command cannot do without.
func addDir(cmd *cobra.Command, dir *string, usage string) {
	cmd.Flags().StringVar(dir, "dir", "", usage)
	if err := cmd.MarkFlagRequired("dir"); err != nil {
		panic(err) // the flag was added above
	}
}
