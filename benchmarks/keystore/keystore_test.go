package keystore_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	bench "github.com/reseal-bft/reseal/benchmarks/keystore"
	"github.com/reseal-bft/reseal/hsm/softhsm"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/swtpm"
)

// TestSideBySide measures a TPM, a token and files in one run, briefly.
func TestSideBySide(t *testing.T) {
	dir := t.TempDir()
	ca, err := swtpm.NewCA(filepath.Join(dir, "ca"))
	require.NoError(t, err)
	require.NoError(t, ca.Manufacture(t.Context(), filepath.Join(dir, "tpm")))
	tpm, err := swtpm.Start(t.Context(), filepath.Join(dir, "tpm"))
	require.NoError(t, err)
	defer func() { require.NoError(t, tpm.Close()) }()
	store, err := softhsm.New(filepath.Join(dir, "softhsm"))
	require.NoError(t, err)
	token, err := store.NewToken(t.Context(), rand.Reader, "bench")
	require.NoError(t, err)

	run, err := bench.Run(t.Context(), bench.Options{
		URIs: []string{tpm.URI(), token.URI(), "file:unused"}, Sessions: []int{1, 2}, For: time.Millisecond,
		Keystore: []keystore.Option{keystore.WithWorkFactor(8)}, Progress: io.Discard,
	})
	require.NoError(t, err)
	var encoded bytes.Buffer
	require.NoError(t, run.WriteJSON(&encoded))
	var report bench.Report
	require.NoError(t, json.Unmarshal(encoded.Bytes(), &report))
	require.Equal(t, *run, report)
	kinds := make(map[string]bool)
	for _, row := range report.Rows {
		kinds[row.Kind] = true
		require.Positive(t, row.Median, "%+v", row)
		require.GreaterOrEqual(t, row.P99, row.Median)
		require.GreaterOrEqual(t, row.Repeats, 10)
	}
	require.Len(t, kinds, 3)
	var table bytes.Buffer
	require.NoError(t, report.WriteTable(&table))
	t.Log("\n" + table.String())
	require.NoError(t, report.WritePlot(dir))
	svg, err := os.ReadFile(filepath.Join(dir, "keystore.svg"))
	require.NoError(t, err)
	require.Contains(t, string(svg), "unseal")
	require.NotContains(t, string(svg), "NaN")
}

func TestMistakes(t *testing.T) {
	for want, args := range map[string][]string{
		"by their URIs": {},
		"--sessions 0":  {"file:x", "--sessions", "0"},
		"write tpm:":    {"nonsense"},
	} {
		cmd := bench.Command(nil)
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetErr(io.Discard)
		cmd.SetArgs(args)
		require.ErrorContains(t, cmd.ExecuteContext(t.Context()), want)
	}
}
