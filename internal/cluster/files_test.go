package cluster

import (
	"crypto/rand"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/budget"
)

func TestReplicaFile(t *testing.T) {
	dir := ReplicaDir(t.TempDir())
	_, err := ReadReplica(dir)
	require.ErrorContains(t, err, "is not the directory of a replica")

	want := &Replica{ID: 3, Listen: "127.0.0.1:7003", Keystore: "file:keystore", PassphraseFile: "passphrase", Genesis: "../genesis.json"}
	require.NoError(t, writeJSON(dir.File(), want))
	got, err := ReadReplica(dir)
	require.NoError(t, err)
	want.Genesis = filepath.Join(filepath.Dir(string(dir)), "genesis.json")
	want.PassphraseFile = filepath.Join(string(dir), "passphrase")
	require.Equal(t, want, got)
	require.ErrorIs(t, writeJSON(dir.File(), want), os.ErrExist, "init overwrites nothing")

	for text, says := range map[string]string{
		``:                    "not in order",
		`{"id": 1} {}`:        "something follows",
		`{"id": 1, "more":1}`: "unknown field",
		`{"id": 70000}`:       "not in order",
		`{"id": 0, "listen": "127.0.0.1:1", "keystore": "file:", "genesis": "g"}`: "id (from 1)",
		`{"id": 1, "listen": "nowhere", "keystore": "file:", "genesis": "g"}`:     "host:port",
	} {
		require.NoError(t, os.WriteFile(dir.File(), []byte(text), 0o600))
		_, err := ReadReplica(dir)
		require.ErrorContains(t, err, says, text)
		require.ErrorContains(t, err, "replica.json")
	}
}

func TestConfigFile(t *testing.T) {
	dir := ReplicaDir(t.TempDir())
	_, err := ReadConfig(dir)
	require.ErrorContains(t, err, "config.json")
	require.NoError(t, writeJSON(dir.Config(), Config{LogLevel: slog.LevelWarn, MemoryLimitMiB: 7}))
	got, err := ReadConfig(dir)
	require.NoError(t, err)
	require.Equal(t, &Config{LogLevel: slog.LevelWarn, MemoryLimitMiB: 7}, got)

	require.NoError(t, os.WriteFile(dir.Config(), []byte(`{"log_level":"loud"}`), 0o600))
	_, err = ReadConfig(dir)
	require.ErrorContains(t, err, "loud")
	require.NoError(t, os.WriteFile(dir.Config(), []byte(`{"memory_limit_mib":-1}`), 0o600))
	_, err = ReadConfig(dir)
	require.ErrorContains(t, err, "negative")
}

func TestKeyFiles(t *testing.T) {
	dir := Dir(t.TempDir())
	_, err := OperatorKeyOf(dir)
	require.ErrorContains(t, err, "reseal init")

	operator, err := newOperatorKey(rand.Reader, dir.OperatorKey())
	require.NoError(t, err)
	gotOperator, err := OperatorKeyOf(dir)
	require.NoError(t, err)
	require.True(t, operator.Equal(gotOperator))

	approval, err := newBootApprovalKey(rand.Reader, dir.BootApprovalKey())
	require.NoError(t, err)
	gotApproval, err := BootApprovalKeyOf(dir)
	require.NoError(t, err)
	require.True(t, approval.Equal(gotApproval))

	require.NoError(t, os.Chmod(dir.OperatorKey(), 0o644))
	_, err = OperatorKeyOf(dir)
	require.ErrorContains(t, err, "chmod 600")
	require.NoError(t, os.Rename(dir.BootApprovalKey(), dir.OperatorKey()))
	_, err = OperatorKeyOf(dir)
	require.ErrorContains(t, err, "does not hold an Ed25519 private key")
	require.NoError(t, os.WriteFile(dir.OperatorKey(), []byte("nonsense"), 0o600))
	_, err = OperatorKeyOf(dir)
	require.ErrorContains(t, err, "PEM")
}

// Init writes a limit that every cluster starts with.
func TestTheMemoryLimitIsEnough(t *testing.T) {
	for _, size := range []bft.Size{{F: 1}, {F: 1, C: 1}, {F: 3}, {F: 10}, {F: 85}} {
		_, err := budget.Of(ConfigFor(size).MemoryLimitMiB<<20, size)
		require.NoError(t, err)
	}
	require.Equal(t, DefaultConfig, ConfigFor(bft.Size{F: 1, C: 1}))
}
