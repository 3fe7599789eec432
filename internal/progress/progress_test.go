package progress

import (
	"bytes"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// display returns a display whose clock stands at 2.5 s after the start.
func display(out *bytes.Buffer) *Display {
	d := New(out)
	d.now = func() time.Time { return d.start.Add(2500 * time.Millisecond) }
	return d
}

func TestPlainOutputHasNoBarAndNoEscapes(t *testing.T) {
	var out bytes.Buffer
	d := display(&out)
	d.Heading("1. The cluster")
	d.Bar(1, 6, "recovering")
	d.Event("replica %d is up", 3)
	d.Close()
	require.Equal(t, "\n1. The cluster\n   2.5 s  replica 3 is up\n", out.String())
}

func TestTerminalKeepsTheBarBelowTheEvents(t *testing.T) {
	var out bytes.Buffer
	d := display(&out)
	d.width = func() int { return 80 }
	d.Bar(3, 6, "1234 operations/s")
	const drawn = "[████████████░░░░░░░░░░░░] 3/6  1234 operations/s"
	require.Equal(t, drawn, out.String())
	out.Reset()
	d.Event("replica 3 is up")
	require.Equal(t, eraseLine+"   2.5 s  replica 3 is up\n"+drawn, out.String())
	out.Reset()
	d.Close()
	d.Event("done")
	require.Equal(t, eraseLine+"   2.5 s  done\n", out.String())
}

func TestBarFitsTheTerminal(t *testing.T) {
	for _, columns := range []int{20, 40, 41, 80} {
		text := bar{done: 7, total: 6, label: "more than there is room for in a narrow terminal, whatever is said"}.render(columns)
		require.Equal(t, columns-1, utf8.RuneCountInString(text))
	}
}
