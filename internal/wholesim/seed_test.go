package wholesim

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"testing/cryptotest"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// runSeed runs a seed in a bubble of its own.
func runSeed(t *testing.T, seed uint64, o Options) (result Result) {
	cryptotest.SetGlobalRandom(t, seed)
	synctest.Test(t, func(*testing.T) {
		result = simulate(seed, o)
		report(result)
	})
	return result
}

// given is the task of a process that the command has started.
func given(t *testing.T) (task, bool) {
	text := os.Getenv(taskVariable)
	if text == "" {
		return task{}, false
	}
	var given task
	require.NoError(t, json.Unmarshal([]byte(text), &given))
	if given.Trace {
		given.Options.Trace = func(line string) { fmt.Fprintln(os.Stderr, line) }
	}
	return given, true
}

// report tells the command what came of its task. It does so within the bubble, so that goroutines
// that cannot end lose nothing.
func report(r Result) {
	if os.Getenv(taskVariable) != "" {
		data, _ := json.Marshal(r)
		fmt.Printf("\n%s%s\n", resultPrefix, data)
		os.Exit(0)
	}
}

// TestSeed runs the seed that the command asks for; in a test, a cluster of four without faults.
func TestSeed(t *testing.T) {
	task, ok := given(t)
	if !ok {
		task.Seed, task.Options = 1, Options{F: 1, C: 0, Adversary: "none", Faults: []string{}}
	}
	r := runSeed(t, task.Seed, task.Options)
	require.Empty(t, r.Failure())
	require.Greater(t, r.Epochs, 3)
	require.Greater(t, r.Writes, 10)
}
