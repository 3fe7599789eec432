package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// newCluster makes a cluster of four with file keystores on free ports.
func newCluster(t *testing.T) cluster.Dir {
	t.Helper()
	dir := cluster.Dir(filepath.Join(t.TempDir(), "cluster"))
	succeeds(t, "init", "--dir", string(dir), "--c", "0", "--keystore", "file", "--base-port", "0")
	return dir
}

func replicaArguments(dir cluster.Dir, id bft.ReplicaID) []string {
	return []string{"replica", "--dir", string(dir.Replica(id))}
}

func TestWrongArguments(t *testing.T) {
	for _, c := range []struct {
		arguments []string
		says      string
	}{
		{[]string{"nonsense"}, "see `reseal --help`"},
		{[]string{"demo", "--nonsense"}, "see `reseal demo --help`"},
		{[]string{"demo", "again"}, "see `reseal demo --help`"},
		{[]string{"demo", "--clients", "0"}, "--clients 0"},
		{[]string{"demo", "--duration", "-1s"}, "--duration -1s"},
		{[]string{"demo", "--f", "0"}, "f >= 1"},
		{[]string{"demo", "--f", "30"}, "choose at most"},
		{[]string{"demo", "--keystore", "paper"}, "choose swtpm"},
		{[]string{"demo", "--keystore", "file", "--input", "/nonexistent"}, "--input"},
		{[]string{"init"}, `"dir" not set`},
		{[]string{"init", "--dir", "/proc/cluster", "--keystore", "file"}, "/proc/cluster"},
		{[]string{"init", "--dir", "x", "--base-port", "70000"}, "--base-port"},
		{[]string{"init", "--dir", "x", "--keystore", "paper"}, "choose swtpm"},
		{[]string{"init", "--dir", "x", "--binary", "/nonexistent"}, "/nonexistent"},
		{[]string{"init", "--dir", "x", "--round-interval", "10m"}, "--allow-wear"},
		{[]string{"init", "--dir", "x", "--round-interval", "-1h", "--allow-wear"}, "round_interval"},
		{[]string{"init", "--dir", "x", "--round-deadline", "0s"}, "round_deadline"},
		{[]string{"replica"}, `"dir" not set`},
		{[]string{"replica", "--dir", "/nonexistent"}, "`reseal init`"},
		{[]string{"launch", "--dir", "/nonexistent"}, "`reseal init`"},
		{[]string{"put", "--dir", "/nonexistent", "key"}, "put needs a key and a value"},
		{[]string{"put", "--dir", "/nonexistent", "key", "value"}, "`reseal init`"},
		{[]string{"get", "--dir", "/nonexistent", "key"}, "`reseal init`"},
		{[]string{"get", "--dir", "/nonexistent", "--timeout", "0s", "key"}, "--timeout"},
		{[]string{"get", "--dir", "/nonexistent", "--max-age", "-5s", "key"}, "--max-age -5s"},
		{[]string{"status", "--dir", "/nonexistent"}, "`reseal init`"},
		{[]string{"order", "round", "--dir", "x", "--due", "0"}, "--due 0"},
		{[]string{"order", "approve", "--dir", "x"}, "--name"},
		{[]string{"order", "dance"}, "see `reseal order --help`"},
	} {
		fails(t, c.arguments, c.says)
	}
	require.NoDirExists(t, "x", "what fails leaves nothing behind")
}

func TestDemoThatFailsLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	fails(t, []string{"demo", "--keystore", "file", "--input", "/nonexistent"}, "--input")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
	require.Empty(t, mentioning(t, dir))
}

func TestMissingSoftwareTPM(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cluster")
	cmd := exec.CommandContext(t.Context(), program(t), "init", "--dir", dir)
	cmd.Env = append(os.Environ(), "PATH=/nonexistent")
	demandOneLine(t, finish(t, cmd), "swtpm", "apt-get install")
	require.NoDirExists(t, dir)
}

func TestBusyPort(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer busy.Close()
	port := strconv.Itoa(busy.Addr().(*net.TCPAddr).Port)
	dir := filepath.Join(t.TempDir(), "cluster")
	fails(t, []string{"init", "--dir", dir, "--keystore", "file", "--base-port", port}, port, "--base-port")
	require.NoDirExists(t, dir)

	made := newCluster(t)
	settings, err := cluster.ReadReplica(made.Replica(2))
	require.NoError(t, err)
	taken, err := net.Listen("tcp", settings.Listen)
	require.NoError(t, err)
	defer taken.Close()
	fails(t, replicaArguments(made, 2), settings.Listen, "in use")
}

func TestDirectoriesThatAreNotWhatTheyShouldBe(t *testing.T) {
	dir := newCluster(t)
	fails(t, []string{"init", "--dir", string(dir), "--keystore", "file"}, "not empty")

	// A store that is a file, then one with something else in it.
	require.NoError(t, os.WriteFile(dir.Replica(1).Store(), nil, 0o600))
	fails(t, replicaArguments(dir, 1), "store")
	require.NoError(t, os.Remove(dir.Replica(1).Store()))
	require.NoError(t, os.Mkdir(dir.Replica(1).Store(), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir.Replica(1).Store(), "thesis.tex"), []byte("important"), 0o600))
	fails(t, replicaArguments(dir, 1), "not empty", "name an empty directory")
	require.FileExists(t, filepath.Join(dir.Replica(1).Store(), "thesis.tex"))

	// Another replica's keystore.
	mine := dir.Replica(2)
	require.NoError(t, os.RemoveAll(mine.Keystore()))
	require.NoError(t, os.CopyFS(mine.Keystore(), os.DirFS(dir.Replica(3).Keystore())))
	fails(t, replicaArguments(dir, 2), "passphrase")
}

func TestDirectoryOfAnotherCluster(t *testing.T) {
	mine, other := newCluster(t), newCluster(t)
	text, err := os.ReadFile(other.Genesis())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(mine.Genesis(), text, 0o600))
	fails(t, replicaArguments(mine, 1), "identity")
}

func TestCorruptGenesis(t *testing.T) {
	dir := newCluster(t)
	text, err := os.ReadFile(dir.Genesis())
	require.NoError(t, err)
	for _, damaged := range [][]byte{text[:len(text)/2], []byte("\x00\xff"), {}, append(text, text...)} {
		require.NoError(t, os.WriteFile(dir.Genesis(), damaged, 0o600))
		fails(t, replicaArguments(dir, 1), "genesis")
		fails(t, []string{"status", "--dir", string(dir)}, "genesis")
	}
	require.NoError(t, os.Remove(dir.Genesis()))
	fails(t, replicaArguments(dir, 1), "genesis", "copy the cluster's")
}

func TestOthersCannotReadTheOperatorsKeys(t *testing.T) {
	dir := newCluster(t)
	for _, key := range []string{dir.OperatorKey(), dir.BootApprovalKey()} {
		info, err := os.Stat(key)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}
}

func TestNobodyAnswers(t *testing.T) {
	dir := newCluster(t)
	fails(t, []string{"get", "--dir", string(dir), "--timeout", "2s", "key"}, "replicas")
	o := run(t, "status", "--dir", string(dir))
	require.Equal(t, 1, o.status)
	require.Contains(t, o.stdout, "does not answer")
	require.Contains(t, o.stderr, "start the others")
}

// An interval of rounds is for init to say; no TPM wears out where there is none.
func TestRoundInterval(t *testing.T) {
	for _, wear := range [][]string{nil, {"--allow-wear"}} {
		dir := cluster.Dir(filepath.Join(t.TempDir(), "cluster"))
		succeeds(t, append([]string{"init", "--dir", string(dir), "--keystore", "file", "--base-port", "0", "--round-interval", "10m"}, wear...)...)
		genesis, err := governance.Load(dir.Genesis())
		require.NoError(t, err)
		require.Equal(t, governance.Duration(10*time.Minute), genesis.RoundInterval)
		require.Equal(t, wear != nil, genesis.AllowWear)
	}
}
