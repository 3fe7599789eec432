package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/internal/cluster"
)

// TestClusterByHand does with commands what an operator does: makes a cluster with TPMs, launches
// it, uses it, and recovers a replica.
func TestClusterByHand(t *testing.T) {
	dir := cluster.Dir(filepath.Join(t.TempDir(), "c"))
	out := succeeds(t, "init", "--dir", string(dir), "--c", "0", "--base-port", "0")
	require.Contains(t, out, "reseal launch --dir")
	group := children{t}
	launch := func(id int) func() {
		log := filepath.Join(t.TempDir(), fmt.Sprintf("log-%d", id))
		cmd := group.start(log, "launch", "--dir", filepath.Join(string(dir), fmt.Sprintf("replica-%d", id)))
		return func() {
			require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
			require.NoError(t, cmd.Wait())
		}
	}
	stop := make([]func(), 5)
	for id := 1; id <= 4; id++ {
		stop[id] = launch(id)
	}
	awaitState(t, dir, func(s *cluster.State) bool { return s.Epoch == 1 })

	succeeds(t, "put", "--dir", string(dir), "greeting", "hello")
	require.Equal(t, "hello\n", succeeds(t, "get", "--dir", string(dir), "greeting"))
	require.Equal(t, "hello\n", succeeds(t, "get", "--dir", string(dir), "--max-age", "1m", "greeting"))
	require.Equal(t, "hello\n", succeeds(t, "get", "--dir", string(dir), "--ordered", "greeting"))
	fails(t, []string{"get", "--dir", string(dir), "--ordered", "--max-age", "1m", "greeting"}, "choose one")
	require.JSONEq(t, `{"key":"greeting","value":"aGVsbG8="}`, succeeds(t, "get", "--dir", string(dir), "--json", "greeting"))
	fails(t, []string{"get", "--dir", string(dir), "nothing"}, "nothing: ")
	require.Contains(t, succeeds(t, "status", "--dir", string(dir)), "holds a share")
	report := filepath.Join(t.TempDir(), "report.json")
	require.Contains(t, succeeds(t, "load", "--dir", string(dir), "--duration", "1s", "--keys", "20", "--check", "--json", report), "porcupine: linearizable")
	require.Contains(t, succeeds(t, "load", "--dir", string(dir), "--duration", "1s", "--rate", "20", "--max-age", "1m"), "20 operations a second were due")
	require.Contains(t, succeeds(t, "load", "merge", report), "porcupine: linearizable")
	fails(t, []string{"load", "merge", report, report}, "name each once")
	fails(t, []string{"load", "--dir", string(dir), "--check", "--max-age", "1s"}, "are not meant to be")

	fails(t, []string{"order", "quarantine", "--dir", string(dir), "--replica", "9", "--reason", "why"}, "no replica 9")
	succeeds(t, "order", "round", "--dir", string(dir), "--due", "2")
	awaitState(t, dir, func(s *cluster.State) bool { return s.Member(2).Awaited.Shown }) // status says: reboot it now
	stop[2]()
	stop[2] = launch(2)
	state := awaitState(t, dir, func(s *cluster.State) bool { return s.Epoch == 2 })
	require.True(t, state.Member(2).Attested)
	require.True(t, state.Member(2).HoldsShare)
	require.Equal(t, "hello\n", succeeds(t, "get", "--dir", string(dir), "greeting"))

	fails(t, []string{"evidence", "--dir", string(dir), "--replica", "1", "--out", filepath.Join(t.TempDir(), "out")}, "has not recovered yet")
	audit := filepath.Join(t.TempDir(), "audit")
	succeeds(t, "evidence", "--dir", string(dir), "--replica", "2", "--out", audit)
	checkQuote(t, audit)
	checkEvidence(t, audit, dir, 2)

	succeeds(t, "order", "approve", "--dir", string(dir), "--name", "next", "--binary", "/bin/true")
	require.Len(t, awaitState(t, dir, func(*cluster.State) bool { return true }).Approved, 2)
	succeeds(t, "order", "revoke", "--dir", string(dir), "--name", "next")
	awaitState(t, dir, func(s *cluster.State) bool {
		for _, m := range s.Members {
			if !m.Device.RevocationReached || m.Device.ApprovableVersion != 2 {
				return false
			}
		}
		return true
	})
	require.Contains(t, succeeds(t, "status", "--dir", string(dir)), "revocations reached its TPM: yes")
	fails(t, []string{"order", "revoke", "--dir", string(dir), "--name", "genesis-1"}, "the only approved boot state")

	stop[3]()
	quoteByHand(t, group, dir, 3)
	stop[3] = launch(3)
	awaitState(t, dir, func(s *cluster.State) bool { return s.Epoch == 2 })
}

// TestUpgradeByHand upgrades a cluster and revokes the old binary: a replica that was away when the
// new one was approved learns it from the others, and proves its reboot by its TPM's clock; the old
// binary then opens nothing on any TPM.
func TestUpgradeByHand(t *testing.T) {
	dir := cluster.Dir(filepath.Join(t.TempDir(), "c"))
	succeeds(t, "init", "--dir", string(dir), "--c", "0", "--base-port", "0")
	old, err := os.ReadFile(program(t))
	require.NoError(t, err)
	release := filepath.Join(t.TempDir(), "reseal")
	require.NoError(t, os.WriteFile(release, append(old, 0), 0o700))
	group := children{t}
	var log string
	launch := func(id int, more ...string) *exec.Cmd {
		log = filepath.Join(t.TempDir(), "log")
		return group.start(log, append([]string{"launch", "--dir", filepath.Join(string(dir), fmt.Sprintf("replica-%d", id))}, more...)...)
	}
	stop := func(cmd *exec.Cmd) {
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, cmd.Wait())
	}
	var running [5]*exec.Cmd
	for id := 1; id <= 4; id++ {
		running[id] = launch(id)
	}
	awaitState(t, dir, func(s *cluster.State) bool {
		for _, m := range s.Members {
			if m.Device.Running != "genesis-1" {
				return false
			}
		}
		return s.Epoch == 1
	})

	stop(running[4])
	succeeds(t, "order", "approve", "--dir", string(dir), "--name", "next", "--binary", release)
	fails(t, []string{"order", "revoke", "--dir", string(dir), "--name", "genesis-1"}, "upgrade the others first")
	succeeds(t, "order", "round", "--dir", string(dir), "--due", "4")
	opened := time.Now()
	awaitState(t, dir, func(*cluster.State) bool { return time.Since(opened) > 15*time.Second }) // longer than clocks may differ
	running[4] = launch(4, "--binary", release)
	state := awaitState(t, dir, func(s *cluster.State) bool { return s.Epoch == 2 })
	require.Equal(t, "next", state.Member(4).BootState)
	for id := 1; id <= 3; id++ {
		succeeds(t, "order", "round", "--dir", string(dir), "--due", fmt.Sprint(id))
		awaitState(t, dir, func(s *cluster.State) bool { return s.Members[id-1].Awaited.Shown })
		stop(running[id])
		running[id] = launch(id, "--binary", release)
		awaitState(t, dir, func(s *cluster.State) bool { return int(s.Epoch) == 2+id })
	}

	succeeds(t, "order", "revoke", "--dir", string(dir), "--name", "genesis-1")
	awaitState(t, dir, func(s *cluster.State) bool { return s.Member(1).Device.RevocationReached })
	stop(running[1])
	require.Error(t, launch(1).Wait(), "its TPM lets the old binary be nobody")
	said, err := os.ReadFile(log)
	require.NoError(t, err)
	require.Contains(t, string(said), "did not boot into an approved state")
	running[1] = launch(1, "--binary", release)
	succeeds(t, "put", "--dir", string(dir), "greeting", "hello")
	stop(running[2]) // replica 1 is needed for a quorum
	require.Equal(t, "hello\n", succeeds(t, "get", "--dir", string(dir), "greeting"))
}

// awaitState asks for the status until it is as wanted.
func awaitState(t *testing.T, dir cluster.Dir, wanted func(*cluster.State) bool) *cluster.State {
	t.Helper()
	var state *cluster.State
	require.Eventually(t, func() bool {
		o := run(t, "status", "--dir", string(dir), "--json")
		if o.status != 0 {
			return false
		}
		var answer struct{ State *cluster.State }
		require.NoError(t, json.Unmarshal([]byte(o.stdout), &answer))
		state = answer.State
		return wanted(state)
	}, time.Minute, 50*time.Millisecond)
	return state
}
