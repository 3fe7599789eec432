package wholesim

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// patch is a change to the Go runtime's source, by which a process with one processor does the same
// each time. It is made while the simulator is built (go build -overlay), in copies of the files;
// the toolchain stays as it is.
type patch struct{ file, old, new string }

var patches = []patch{
	// The monitor's thread preempts what runs long, and takes the processor from what is long in C
	// code: by the machine's clock.
	{"runtime/proc.go", `const haveSysmon = GOARCH != "wasm"`, `const haveSysmon = false`},
	// All chance of the runtime (the order of maps, selects, timers of one moment; package
	// math/rand) comes from one seed. Here GODEBUG is that seed.
	{
		"runtime/rand.go", "	seed := &globalRand.seed\n	if len(startupRand) >= 16 &&",
		"	seed := &globalRand.seed\n	if given, _ := getGodebugEarly(); given != \"\" {\n		for i := range len(given) {\n			seed[i%len(seed)] ^= given[i]\n		}\n	} else if len(startupRand) >= 16 &&",
	},
	// A mutex that was waited for too long, by the machine's clock, is given to those who wait in turn.
	{"internal/sync/mutex.go", "starvationThresholdNs = 1e6", "starvationThresholdNs = 1 << 62"},
}

// environment is what a process of a binary with a patched runtime is started with to play a seed.
// The collector stops the world, at moments of virtual time, see [cluster.collect].
func environment(seed uint64) []string {
	return []string{fmt.Sprintf("GODEBUG=gcstoptheworld=2,simulated=%d", seed), "GOGC=off", "GOMAXPROCS=1", "GOTRACEBACK=all"}
}

// overlay writes the patched files into a directory, and a file that tells the go command of them.
func overlay(dir string) (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find the Go toolchain: %w", err)
	}
	replaced := make(map[string]string)
	for i, p := range patches {
		file := filepath.Join(strings.TrimSpace(string(out)), "src", p.file)
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		if strings.Count(string(data), p.old) != 1 {
			return "", fmt.Errorf("%s is not as it was in Go 1.26: bring the patches in internal/wholesim/runtime.go up to this toolchain", file)
		}
		changed := filepath.Join(dir, fmt.Sprintf("%d-%s", i, filepath.Base(file)))
		if err := os.WriteFile(changed, []byte(strings.Replace(string(data), p.old, p.new, 1)), 0o600); err != nil {
			return "", err
		}
		replaced[file] = changed
	}
	list, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, list, 0o600)
}
