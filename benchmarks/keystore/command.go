package keystore

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/keystore"
)

// Command is `keystore`, to be mounted under `reseal bench`. Secrets that the
// URIs do not point to are asked for by prompt.
func Command(prompt func(what string) (keystore.Secret, error)) *cobra.Command {
	var sessions []int
	var jsonFile, plotDir string
	var during time.Duration
	cmd := &cobra.Command{
		Use:   "keystore URI...",
		Short: "Measure keystores on the devices named, side by side",
		Long: `Measure sign, seal, unseal, advance, quote and open on each device named by its URI (see reseal keystore --help), side by side.
A keystore is made on each device for the purpose, beside those that are there, and removed afterwards.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name one or more keystores by their URIs: see `reseal keystore --help`")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, n := range sessions {
				if n < 1 || n > 256 {
					return fmt.Errorf("--sessions %d: choose 1 to 256", n)
				}
			}
			report, err := Run(cmd.Context(), Options{
				URIs: args, Sessions: sessions, For: during, Progress: cmd.ErrOrStderr(),
				Keystore: []keystore.Option{keystore.WithPrompt(prompt)},
			})
			if err != nil {
				return err
			}
			if plotDir != "" {
				if err := report.WritePlot(plotDir); err != nil {
					return fmt.Errorf("plot: %w", err)
				}
			}
			if jsonFile == "-" {
				return report.WriteJSON(cmd.OutOrStdout())
			}
			if jsonFile != "" {
				f, err := os.Create(jsonFile)
				if err != nil {
					return err
				}
				if err := errors.Join(report.WriteJSON(f), f.Close()); err != nil {
					return err
				}
			}
			return report.WriteTable(cmd.OutOrStdout())
		},
	}
	cmd.Flags().IntSliceVar(&sessions, "sessions", []int{1, 8}, "numbers of callers at once")
	cmd.Flags().StringVar(&jsonFile, "json", "", "write the results as JSON to this file (- for standard output, instead of the table)")
	cmd.Flags().StringVar(&plotDir, "plot", "", "write keystore.svg into this directory")
	cmd.Flags().DurationVar(&during, "for", time.Second, "how long each operation is repeated")
	return cmd
}
