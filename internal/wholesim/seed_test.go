package wholesim

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// runSeed runs a seed in a bubble of its own.
func runSeed(t *testing.T, seed uint64, o Options) Result {
	cryptotest.SetGlobalRandom(t, seed)
	start := time.Now()
	var result Result
	synctest.Test(t, func(t *testing.T) { result = simulate(seed, o) })
	result.Seconds = time.Since(start).Seconds()
	return result
}

func TestHonest(t *testing.T) {
	o := Options{F: 1, C: 0, Faults: []string{}}
	if os.Getenv("TRACE") != "" {
		o.Trace = func(line string) { os.Stderr.WriteString(line + "\n") }
	}
	r := runSeed(t, 1, o)
	data, _ := json.MarshalIndent(r, "", " ")
	t.Log(string(data))
	require.Empty(t, r.Failure())
}

func TestSome(t *testing.T) {
	first, count := 1, 10
	fmt.Sscan(os.Getenv("SEEDS"), &first, &count)
	for seed := first; seed < first+count; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			o := Options{F: 1, C: 1}
			fmt.Sscan(os.Getenv("SIZE"), &o.F, &o.C)
			if os.Getenv("TRACE") != "" {
				o.Trace = func(line string) { os.Stderr.WriteString(line + "\n") }
			}
			r := runSeed(t, uint64(seed), o)
			data, _ := json.MarshalIndent(r, "", " ")
			t.Log(string(data))
			require.Empty(t, r.Failure())
		})
	}
}
