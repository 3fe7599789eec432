package main

import (
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/internal/files"
	"github.com/reseal-bft/reseal/keystore"
)

const kernelEventLog = "/sys/kernel/security/tpm0/binary_bios_measurements"

func newKeystorePredictCommand() *cobra.Command {
	var file, pcrs string
	cmd := &cobra.Command{
		Use:   "predict [--eventlog FILE] [--pcrs 0,2,4,7,14]",
		Short: "Compute from a boot's event log what the PCRs hold after it",
		Long: `Predict reads the event log that firmware and boot loader wrote, and computes what the PCRs hold after that boot: the values to
approve before machines boot it. A log proves nothing by itself; that a machine's PCRs are these is proven by its quote.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			selection := keystore.DefaultPCRs
			if pcrs != "" {
				if err := selection.UnmarshalText([]byte(pcrs)); err != nil {
					return err
				}
			}
			data, err := readEventLog(file)
			if err != nil {
				return err
			}
			log, err := keystore.ParseEventLog(data)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			for _, v := range log.Predict(selection) {
				fmt.Fprintf(cmd.OutOrStdout(), "%d %s\n", v.Index, hex.EncodeToString(v.Digest[:]))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "eventlog", kernelEventLog, "the event log, in the TCG's binary format")
	cmd.Flags().StringVar(&pcrs, "pcrs", "", "PCRs to compute (default 0,2,4,7,14)")
	return cmd
}

// readEventLog reads at most as much as a log may have.
func readEventLog(name string) ([]byte, error) {
	data, err := files.Read(name, keystore.MaxEventLog)
	if err != nil {
		return nil, fmt.Errorf("event log: %w: name one by --eventlog", err)
	}
	return data, nil
}
