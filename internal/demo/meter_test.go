package demo

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMeterFindsTheLongestGap(t *testing.T) {
	at := time.Unix(1000, 0)
	m := newMeter()
	m.now = func() time.Time { return at }
	pass := func(d time.Duration) { at = at.Add(d) }

	m.acknowledged(1) // before the start: no gap is measured
	pass(time.Hour)
	m.start()
	begin := m.mark()
	pass(time.Second)
	m.acknowledged(10)
	pass(3 * time.Second)
	m.acknowledged(30)
	end := m.mark()
	require.Equal(t, 3*time.Second, m.longestGap())
	pass(5 * time.Second)
	m.stop()
	require.Equal(t, 5*time.Second, m.longestGap(), "a gap that is open at the end counts")
	pass(time.Hour)
	m.acknowledged(1)
	require.Equal(t, 5*time.Second, m.longestGap())

	var r rate
	require.Zero(t, r.perSecond())
	r.add(begin, end)
	require.InDelta(t, 10, r.perSecond(), 1e-9)
	r.add(begin, end)
	require.InDelta(t, 10, r.perSecond(), 1e-9)
}
