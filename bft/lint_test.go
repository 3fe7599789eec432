package bft

import (
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The core is pure: what it may import is listed here, and nothing else. "time" is for durations;
// time.Now would not be found by this test, but by the simulator, which runs every seed twice.
func TestCoreImports(t *testing.T) {
	allowed := map[string]bool{
		"bytes": true, "cmp": true, "crypto/ed25519": true, "crypto/sha256": true, "encoding/binary": true, "encoding/hex": true, "errors": true,
		"fmt": true, "io": true, "maps": true, "slices": true, "time": true, "golang.org/x/crypto/cryptobyte": true,
	}
	files, err := os.ReadDir(".")
	require.NoError(t, err)
	seen := 0
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		seen++
		tree, err := parser.ParseFile(token.NewFileSet(), f.Name(), nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, spec := range tree.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			require.Truef(t, allowed[path], "%s imports %s", f.Name(), path)
		}
	}
	require.Greater(t, seen, 10)
}

// The core neither reads a clock nor starts goroutines, and iterates over no map.
func TestCoreIsDeterministic(t *testing.T) {
	files, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		source, err := os.ReadFile(f.Name())
		require.NoError(t, err)
		for _, banned := range []string{"time.Now", "time.Since", "time.After", "\tgo ", "range c.tree", "rand."} {
			require.NotContainsf(t, string(source), banned, "%s", f.Name())
		}
	}
}
