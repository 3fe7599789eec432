package actor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery"
)

// Conduct is how an actor behaves from now on. The zero value is that of a correct replica.
type Conduct struct {
	// ClockAhead is added to the wall clock; negative: the clock is behind.
	ClockAhead time.Duration `json:"clock_ahead"`
	// Cut are the peers from which nothing arrives and which nothing reaches.
	Cut []bft.ReplicaID `json:"cut"`
	// BytesPerSecond bounds what it serves by calls to other replicas; 0: no bound.
	BytesPerSecond int `json:"bytes_per_second"`
	// Equivocate has it sign two blocks for every view that it leads, and show one half of the
	// others one of them, the other half the other.
	Equivocate bool `json:"equivocate"`
	// Flood has it send every peer as much as that takes: frames of the largest size, and calls that
	// are never finished, on many connections; and make its blocks as large as blocks may be.
	Flood bool `json:"flood"`
	// Deals says what receivers get as their parts of what it deals; who is not named gets what it
	// should.
	Deals map[bft.ReplicaID]Deal `json:"deals"`
	// DiesBefore is the step of a handoff before which it kills its own process, as a power cut
	// would; they are counted from 1 since this was told, and what is said again to the same peer
	// is no other step. 0: none.
	DiesBefore int `json:"dies_before"`
}

// Save gives an actor its conduct. The file is replaced as a whole.
func (c Conduct) Save(file string) error {
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	next := file + ".next"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return err
	}
	return os.Rename(next, file)
}

// Actor follows a conduct file.
type Actor struct {
	file    string
	text    []byte
	conduct atomic.Pointer[Conduct]
	steps   steps
}

// New reads the conduct in a file, and follows it until ctx ends.
func New(ctx context.Context, file string) (*Actor, error) {
	a := &Actor{file: filepath.Clean(file)}
	if err := a.read(); err != nil {
		return nil, err
	}
	go a.follow(ctx)
	return a, nil
}

func (a *Actor) read() error {
	text, err := os.ReadFile(a.file)
	if err != nil {
		return err
	}
	if bytes.Equal(text, a.text) {
		return nil
	}
	var c Conduct
	if err := json.Unmarshal(text, &c); err != nil {
		return fmt.Errorf("%s: %w", a.file, err)
	}
	a.text = text
	a.steps.forget()
	a.conduct.Store(&c)
	return nil
}

func (a *Actor) follow(ctx context.Context) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			_ = a.read() // the next tick tries again
		case <-ctx.Done():
			return
		}
	}
}

// Cast puts the actor into a node's place.
func (a *Actor) Cast(cfg *recovery.NodeConfig) {
	cfg.Clock = func() time.Time { return time.Now().Add(a.conduct.Load().ClockAhead) }
	cfg.Network = a.connect
	cfg.Keystore = a.keeps(cfg.Keystore)
}
