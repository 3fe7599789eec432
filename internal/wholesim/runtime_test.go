package wholesim

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each change to the runtime is one to this toolchain's. That runs are then the same again,
// [Campaign] itself finds out: a simulator with a changed runtime takes minutes to build.
func TestTheRuntimeIsTheOneThatIsPatched(t *testing.T) {
	path, err := overlay(t.TempDir())
	require.NoError(t, err)
	require.FileExists(t, path)
	for _, p := range patches {
		require.NotEqual(t, p.old, p.new)
	}
	list, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(list), "/src/runtime/rand.go")
}
