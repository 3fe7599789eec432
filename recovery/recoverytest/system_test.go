package recoverytest

import (
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSystemDeterminesWhatItMayAndNoMore(t *testing.T) {
	s := &System{}
	one := big.NewInt(1)
	x, y, sum := Form{}, Form{}, Form{}
	x.Add(0, one)
	y.Add(1, one)
	sum.Add(0, one)
	sum.Add(1, one)
	require.True(t, s.Know(sum, big.NewInt(5)))
	_, ok := s.Value(x)
	require.False(t, ok)
	require.True(t, s.Know(y, big.NewInt(2)))
	value, ok := s.Value(x)
	require.True(t, ok)
	require.EqualValues(t, 3, value.Int64())
	require.False(t, s.Know(x, big.NewInt(4)), "a contradiction")
}
