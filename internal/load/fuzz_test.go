package load

import (
	"encoding/json"
	"testing"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/stretchr/testify/require"
)

// Whatever another machine's report holds, and a range on the command line.
func FuzzReport(f *testing.F) {
	with := Samples{latencies: hdrhistogram.NewPacked(1, longest, digits)}
	require.NoError(f, with.latencies.RecordValues(1000, 3))
	for _, s := range []Samples{{}, with} {
		text, err := json.Marshal(s)
		require.NoError(f, err)
		f.Add(text)
	}
	f.Add([]byte(`"64-4K"`))
	f.Add([]byte(`"9999999999999M"`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s Samples
		if json.Unmarshal(data, &s) == nil {
			_, err := json.Marshal(s)
			require.NoError(t, err)
		}
		var r Range
		if json.Unmarshal(data, &r) == nil {
			require.LessOrEqual(t, r.From, r.To)
			require.GreaterOrEqual(t, r.From, 0)
		}
	})
}
