package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// The digest is that of the file, as sha256sum and a boot chain see it.
func TestVersion(t *testing.T) {
	file, err := os.ReadFile(program(t))
	require.NoError(t, err)
	digest := sha256.Sum256(file)
	out, err := exec.CommandContext(t.Context(), program(t), "version", "--json").Output()
	require.NoError(t, err)
	var v version
	require.NoError(t, json.NewDecoder(bytes.NewReader(out)).Decode(&v))
	require.Equal(t, hex.EncodeToString(digest[:]), v.SHA256)
	require.Equal(t, runtime.Version(), v.Go)
	require.Equal(t, runtime.GOOS+"/"+runtime.GOARCH, v.Platform)
	out, err = exec.CommandContext(t.Context(), program(t), "version").Output()
	require.NoError(t, err)
	require.Contains(t, string(out), "sha256 "+v.SHA256)
}
