package hsm

import (
	"log/slog"
	"slices"
	"sync"
)

// maxNotes bounds the notes that are kept: the first ones tell what began.
const maxNotes = 8

// notes are what a person should know: they go to the log, and into Status.
type notes struct {
	mu   sync.Mutex
	kept []string
}

func (n *notes) add(log *slog.Logger, text string) {
	log.Warn(text)
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.kept) < maxNotes && !slices.Contains(n.kept, text) {
		n.kept = append(n.kept, text)
	}
}

func (n *notes) list() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.kept)
}
