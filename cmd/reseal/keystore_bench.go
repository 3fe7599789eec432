package main

import (
	"github.com/spf13/cobra"

	bench "github.com/reseal-bft/reseal/benchmarks/keystore"
)

// newBenchKeystoreCommand is `reseal bench keystore`.
func newBenchKeystoreCommand() *cobra.Command { return bench.Command(askTerminal) }
