package cluster

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/files"
)

// Whatever a replica says of itself and of the cluster: callers find every member where they look.
func FuzzInfo(f *testing.F) {
	f.Add([]byte(`{"state":` + stateText(2, 1) + `}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`null`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, answer []byte) {
		info, err := parseInfo(answer)
		if err != nil {
			return
		}
		s, err := parseState(info.State, 4)
		if err != nil {
			return
		}
		for id := bft.ReplicaID(1); id <= 4; id++ {
			require.Equal(t, id, s.Member(id).ID)
		}
		require.False(t, s.LaterThan(s))
	})
}

// Whatever the files of a replica and of a client hold: they are read, or refused with their name.
func FuzzFiles(f *testing.F) {
	replica, err := json.Marshal(Replica{ID: 1, Listen: "127.0.0.1:1", Keystore: "file:keys", Genesis: "genesis.json"})
	require.NoError(f, err)
	config, err := json.Marshal(ConfigFor(bft.Size{F: 1}))
	require.NoError(f, err)
	for _, text := range []string{string(replica), string(config), "cluster 00 height 7\n", "00ff\n", ""} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		of := ReplicaDir(dir)
		for _, path := range []string{of.File(), of.Config(), Dir(dir).Seen(), Dir(dir).GroupKey()} {
			require.NoError(t, os.WriteFile(path, text, 0o600))
		}
		if r, err := ReadReplica(of); err != nil {
			require.ErrorContains(t, err, of.File())
		} else {
			require.True(t, filepath.IsAbs(r.Genesis))
		}
		if c, err := ReadConfig(of); err != nil {
			require.ErrorContains(t, err, of.Config())
		} else {
			require.GreaterOrEqual(t, c.MemoryLimitMiB, int64(0))
		}
		if _, err := readSeen(Dir(dir), bft.ClusterID{}); err != nil {
			require.ErrorContains(t, err, Dir(dir).Seen())
		}
		_, err := groupKeyOf(context.Background(), Dir(dir), nil)
		if err != nil {
			require.ErrorContains(t, err, Dir(dir).GroupKey())
		}
		read, err := files.Read(of.File(), maxFile)
		require.NoError(t, err)
		require.Equal(t, text, read)
	})
}
