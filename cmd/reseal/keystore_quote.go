package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/device"
	"github.com/reseal-bft/reseal/keystore/tpm2tools"
)

func newKeystoreQuoteCommand() *cobra.Command {
	var flags keystoreFlags
	var nonce, out string
	cmd := &cobra.Command{
		Use:   "quote URI --dir DIR --nonce HEX --out DIR",
		Short: "Write a TPM's quote over a nonce, in the files of tpm2-tools",
		Long: `Quote has the TPM sign its PCRs and a nonce with the attestation key, and writes what tpm2_checkquote verifies, with a README. It claims the
boot: run it where no replica runs, and reboot before one does. It takes a boot in an approved state: with the software TPM of a cluster's
directory, "reseal launch --dir CLUSTER/replica-N --measure-only" is one.
` + keystoreURIs,
		Example: `  reseal launch --dir CLUSTER/replica-3 --measure-only &
  reseal keystore quote tpm:unix:CLUSTER/replica-3/tpm/tpm.sock --dir CLUSTER/replica-3/keystore \
    --genesis CLUSTER/genesis.json --replica 3 --nonce $(openssl rand -hex 32) --out quote`,
		Args: oneURI,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			data, err := hex.DecodeString(nonce)
			if err != nil || len(data) < keystore.MinNonce || len(data) > keystore.MaxNonce {
				return fmt.Errorf("--nonce %q: give %d to %d bytes in hexadecimal", nonce, keystore.MinNonce, keystore.MaxNonce)
			}
			if out == "" {
				return errors.New("say where the quote is to be written: --out DIR")
			}
			opts, err := flags.options()
			if err != nil {
				return err
			}
			// Before the boot is claimed: a directory that is there costs no reboot.
			if err := os.Mkdir(out, 0o755); err != nil {
				return fmt.Errorf("%w: choose a new directory", err)
			}
			defer func() {
				if err != nil {
					_ = os.Remove(out)
				}
			}()
			k, err := device.Open(cmd.Context(), args[0], opts...)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, k.Close()) }()
			attester, ok := k.(keystore.Attester)
			if !ok {
				return fmt.Errorf("%s has no TPM, which alone makes quotes", args[0])
			}
			if err := k.Claim(); err != nil {
				return err
			}
			quote, err := attester.Quote(data)
			if err != nil {
				return err
			}
			command, err := tpm2tools.Write(out, attester.AttestationKey(), data, quote)
			if err != nil {
				return err
			}
			readme := "The TPM's quote verifies, in this directory, with\n\n    " + command + "\n\n" + tpm2tools.Explained
			if err := tpm2tools.WriteNew(filepath.Join(out, "README"), []byte(readme)); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "verify it in %s with\n%s\nand see the README there\n", out, command)
			return nil
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&nonce, "nonce", "", "what the verifier chose, hexadecimal")
	cmd.Flags().StringVar(&out, "out", "", "directory to make")
	return cmd
}
