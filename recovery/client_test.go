package recovery

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// However often somebody asks where a node stands, the answer is made once in a while, and an error
// is not kept.
func TestWhereANodeStandsIsSaidOnceInAWhile(t *testing.T) {
	made, failed, now := 0, errors.New("not now"), time.Unix(1, 0)
	var i info
	ask := func(err error) error {
		_, got := i.get(now, func() ([]byte, error) { made++; return []byte{byte(made)}, err })
		return got
	}
	require.ErrorIs(t, ask(failed), failed)
	for range 1000 {
		require.NoError(t, ask(nil))
	}
	require.Equal(t, 2, made)
	now = now.Add(infoFor)
	require.NoError(t, ask(nil))
	require.Equal(t, []byte{3}, i.answer)
}
