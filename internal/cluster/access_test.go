package cluster

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft/client"
)

func TestGroupKeyIsKept(t *testing.T) {
	p := plan(t, File)
	genesis, err := Create(t.Context(), p)
	require.NoError(t, err)
	members, err := Dial(genesis)
	require.NoError(t, err)
	defer members.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = groupKeyOf(ctx, p.Dir, members)
	require.ErrorIs(t, err, client.ErrNoGroupKey, "no replica runs")

	// The public key of drand's quicknet network: a point of G2 in the form that is used here.
	const key = "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d1064510d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a"
	require.NoError(t, os.WriteFile(p.Dir.GroupKey(), []byte(key+"\n"), 0o600))
	got, err := groupKeyOf(t.Context(), p.Dir, members)
	require.NoError(t, err)
	require.Equal(t, key, fmt.Sprintf("%x", got.Bytes()))

	a := &Access{dir: p.Dir, key: got}
	require.NoError(t, a.compareGroupKey(&State{GroupKey: key}))
	require.NoError(t, a.compareGroupKey(&State{}), "none was generated yet")
	require.ErrorContains(t, a.compareGroupKey(&State{GroupKey: "b" + key[1:]}), p.Dir.GroupKey())

	for _, text := range []string{"nonsense", "00", ""} {
		require.NoError(t, os.WriteFile(p.Dir.GroupKey(), []byte(text), 0o600))
		_, err = groupKeyOf(t.Context(), p.Dir, members)
		require.ErrorContains(t, err, "remove it")
	}
}
