package seldom

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Of each subject the first is told, then one in each interval, with how many there were between
// them; one subject keeps no other from being told of.
func TestOncePerInterval(t *testing.T) {
	teller, now := New[string](time.Minute), time.Unix(1, 0)
	told := func(subject string) (more int) {
		more, due := teller.Due(subject, now)
		if !due {
			return -1
		}
		return more
	}
	require.Equal(t, 0, told("a"))
	for range 1000 {
		require.Equal(t, -1, told("a"))
	}
	require.Equal(t, 0, told("b"))
	now = now.Add(time.Minute - 1)
	require.Equal(t, -1, told("a"))
	now = now.Add(1)
	require.Equal(t, 1001, told("a"))
	require.Equal(t, -1, told("a"))
	require.Equal(t, 0, told("b"))
	now = now.Add(time.Minute)
	require.Equal(t, 1, told("a"))
}
