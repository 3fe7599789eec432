package threshold

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// Command is `threshold`, to be mounted under `reseal bench`.
func Command() *cobra.Command {
	var n []int
	var jsonFile, plotDir string
	cmd := &cobra.Command{
		Use:   "threshold",
		Short: "Measure threshold signatures, dealings and the handoff beside kyber's tbls and lists of signatures",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := Run(cmd.Context(), Options{N: n, Progress: cmd.ErrOrStderr()})
			if err != nil {
				return err
			}
			if plotDir != "" {
				if err := report.WritePlots(plotDir); err != nil {
					return fmt.Errorf("writing plots to %s: %w", plotDir, err)
				}
			}
			if jsonFile == "-" {
				return report.WriteJSON(cmd.OutOrStdout())
			}
			if jsonFile != "" {
				if err := writeFile(jsonFile, report.WriteJSON); err != nil {
					return err
				}
			}
			return report.WriteTable(cmd.OutOrStdout())
		},
	}
	cmd.Flags().IntSliceVar(&n, "n", DefaultN, "numbers of replicas to measure")
	cmd.Flags().StringVar(&jsonFile, "json", "", "write the results as JSON to this file (- for standard output, instead of the table)")
	cmd.Flags().StringVar(&plotDir, "plot", "", "write plots, SVG and HTML, into this directory")
	return cmd
}

func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
