package stage

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMeterFindsTheLongestGap(t *testing.T) {
	at := time.Unix(1000, 0)
	m := NewMeter()
	m.now = func() time.Time { return at }
	pass := func(d time.Duration) { at = at.Add(d) }

	m.Acknowledged(1) // before the start: no gap is measured
	pass(time.Hour)
	m.Start()
	begin := m.Mark()
	pass(time.Second)
	m.Acknowledged(10)
	pass(3 * time.Second)
	m.Acknowledged(30)
	end := m.Mark()
	require.Equal(t, 3*time.Second, m.LongestGap())
	pass(5 * time.Second)
	m.Stop()
	require.Equal(t, 5*time.Second, m.LongestGap(), "a gap that is open at the end counts")
	pass(time.Hour)
	m.Acknowledged(1)
	require.Equal(t, 5*time.Second, m.LongestGap())

	var r Rate
	require.Zero(t, r.PerSecond())
	r.Add(begin, end)
	require.InDelta(t, 10, r.PerSecond(), 1e-9)
	r.Add(begin, end)
	require.InDelta(t, 10, r.PerSecond(), 1e-9)
}
