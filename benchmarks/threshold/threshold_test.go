package threshold

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCommandMeasuresAndPlots(t *testing.T) {
	dir := t.TempDir()
	cmd := Command()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	cmd.SetArgs([]string{"--n", "4,7", "--json", "-", "--plot", dir})
	require.NoError(t, cmd.ExecuteContext(t.Context()))

	var report struct{ Rows []map[string]float64 }
	require.NoError(t, json.Unmarshal(out.Bytes(), &report))
	require.Len(t, report.Rows, 2)
	for i, n := range []float64{4, 7} {
		row := report.Rows[i]
		require.Equal(t, n, row["n"])
		require.Equal(t, 48.0, row["certificate_bytes"])
		for _, key := range []string{
			"q", "sign_us", "partial_verify_us", "combine_us", "verify_us", "combine_and_verify_us", "kyber_tbls_recover_us",
			"batch_verify_16_us", "list_bytes", "list_sign_us", "list_verify_us", "list_batch_verify_us", "ecdsa_list_bytes", "ecdsa_list_verify_us",
			"deal_us", "dealing_bytes", "dealing_verify_us", "reshare_cpu_us",
		} {
			require.Positive(t, row[key], key)
		}
	}
	for _, file := range []string{"sizes.svg", "times.svg", "handoff.svg"} {
		f, err := os.Open(filepath.Join(dir, file))
		require.NoError(t, err)
		requireXML(t, f)
		require.NoError(t, f.Close())
	}
	page, err := os.ReadFile(filepath.Join(dir, "threshold.html"))
	require.NoError(t, err)
	require.NotContains(t, string(page), "ZgotmplZ")
	require.Contains(t, string(page), "<svg")
}

// requireXML reads a document to its end.
func requireXML(t *testing.T, r io.Reader) {
	d := xml.NewDecoder(r)
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
	}
}

func TestRunRefusesAndStops(t *testing.T) {
	_, err := Run(t.Context(), Options{N: []int{0}})
	require.ErrorContains(t, err, "choose between")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Run(ctx, Options{N: []int{4}})
	require.ErrorIs(t, err, context.Canceled)
}

func TestWhereTheLinesCross(t *testing.T) {
	list := func(r Row) float64 { return r.ListVerify }
	certificate := func(r Row) float64 { return r.Verify }
	rows := []Row{{N: 4, ListVerify: 300, Verify: 800}, {N: 16, ListVerify: 1300, Verify: 800}}
	require.Contains(t, crossing("x", rows, list, certificate), "below about n=10,")
	require.Contains(t, crossing("x", rows[:1], list, certificate), "at every n measured")
	require.Contains(t, crossing("x", rows[1:], list, certificate), "from n=16 on")
}
