package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// Display writes events and a bar. Safe for concurrent use.
type Display struct {
	mu    sync.Mutex
	out   io.Writer
	now   func() time.Time
	start time.Time
	// width returns the columns of the terminal; nil when the output is none.
	width func() int
	bar   bar
	drawn bool
}

type bar struct {
	done, total int
	label       string
}

// New shows progress on out, with a bar if it is a terminal.
func New(out io.Writer) *Display {
	d := &Display{out: out, now: time.Now, start: time.Now()}
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		d.width = func() int {
			columns, _, err := term.GetSize(int(file.Fd()))
			if err != nil || columns < 20 {
				return 80
			}
			return columns
		}
	}
	return d
}

// Event writes one line: the time since the start, and what happened.
func (d *Display) Event(format string, args ...any) {
	d.line(fmt.Sprintf("%6.1f s  ", d.now().Sub(d.start).Seconds()) + fmt.Sprintf(format, args...))
}

// Heading writes a line without time that begins a part of the story, set off by an empty line.
func (d *Display) Heading(format string, args ...any) {
	d.line("\n" + fmt.Sprintf(format, args...))
}

func (d *Display) line(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.erase()
	fmt.Fprintln(d.out, text)
	d.draw()
}

// Bar sets the bar: done of total, and a few words.
func (d *Display) Bar(done, total int, format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bar = bar{done: done, total: total, label: fmt.Sprintf(format, args...)}
	d.erase()
	d.draw()
}

// Close takes the bar away. Events after it are plain lines.
func (d *Display) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.erase()
	d.width = nil
}

const eraseLine = "\r\x1b[2K"

func (d *Display) erase() {
	if d.drawn {
		fmt.Fprint(d.out, eraseLine)
		d.drawn = false
	}
}

func (d *Display) draw() {
	if d.width == nil || d.bar.total <= 0 {
		return
	}
	fmt.Fprint(d.out, d.bar.render(d.width()))
	d.drawn = true
}

// render draws the bar in one column less than there are, so that no terminal wraps it.
func (b bar) render(columns int) string {
	const cells = 24
	full := cells * min(max(b.done, 0), b.total) / b.total
	text := fmt.Sprintf("[%s%s] %d/%d  %s", strings.Repeat("█", full), strings.Repeat("░", cells-full), b.done, b.total, b.label)
	if utf8.RuneCountInString(text) >= columns {
		text = string([]rune(text)[:columns-1])
	}
	return text
}
