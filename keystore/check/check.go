package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/device"
)

// Outcome of a check.
type Outcome string

// The outcomes. A device fails only what it claims to do.
const (
	Works      Outcome = "works"
	Fails      Outcome = "FAILS"
	NotOffered Outcome = "not offered"
)

// Row is the outcome of one check.
type Row struct {
	Check   string  `json:"check"`
	Outcome Outcome `json:"outcome"`
	Means   string  `json:"means"`
	Detail  string  `json:"detail,omitempty"` // of a failure
	Millis  float64 `json:"ms"`
}

// Report is the outcome of all checks on a device.
type Report struct {
	URI      string `json:"uri"`
	Kind     string `json:"kind"`
	Device   string `json:"device"`
	Software bool   `json:"software"`
	Rows     []Row  `json:"rows"`
}

// Failed counts the checks that failed.
func (r *Report) Failed() int {
	n := 0
	for _, row := range r.Rows {
		if row.Outcome == Fails {
			n++
		}
	}
	return n
}

// errNotOffered is returned by a check of what a device does not claim.
var errNotOffered = errors.New("not offered")

// step is one check.
type step struct {
	name  string
	means string // when it works
	lacks string // what it means when the device does not offer it
	run   func(b *bench) error
}

// bench is a keystore under test.
type bench struct {
	ctx     context.Context
	place   *Place
	dir     string
	scratch string // for copies of dir
	store   keystore.Keystore
	status  keystore.Status
}

// Run makes a keystore on the device at uri, tries everything, and removes it.
// It fails when not even that is possible; all else is in the report.
func Run(ctx context.Context, uri string, opts ...keystore.Option) (report *Report, err error) {
	scratch, err := os.MkdirTemp("", "reseal-check")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	t, err := NewPlace(ctx, uri, scratch, opts)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.CleanUp()) }()
	b := &bench{ctx: ctx, place: t, dir: t.Dir, scratch: scratch}
	if b.store, err = device.Init(ctx, t.URI, t.Options...); err != nil {
		return nil, err
	}
	if b.status, err = b.store.Status(); err != nil {
		return nil, errors.Join(err, b.store.Close())
	}
	report = &Report{URI: uri, Kind: b.status.Kind, Device: b.status.Device, Software: b.status.Software}
	for _, s := range steps() {
		if err := ctx.Err(); err != nil {
			return nil, errors.Join(err, b.store.Close())
		}
		report.Rows = append(report.Rows, b.try(s))
	}
	if err := b.store.Close(); err != nil {
		return nil, err
	}
	report.Rows = append(report.Rows, b.try(step{
		name:  "leaves nothing behind",
		means: "Keys, counters, sessions and objects of this check are gone from the device.",
		run:   func(*bench) error { return t.CleanUp() },
	}))
	return report, nil
}

// try runs one check and times it.
func (b *bench) try(s step) Row {
	start := time.Now()
	err := s.run(b)
	row := Row{Check: s.name, Outcome: Works, Means: s.means, Millis: float64(time.Since(start).Microseconds()) / 1000}
	switch {
	case errors.Is(err, errNotOffered):
		row.Outcome, row.Means = NotOffered, s.lacks
	case err != nil:
		row.Outcome, row.Detail = Fails, err.Error()
	}
	return row
}

// reopen opens a copy of the keystore's directory, as an intruder with the
// disk's content does.
func (b *bench) reopen() (keystore.Keystore, error) {
	dir, err := os.MkdirTemp(b.scratch, "copy")
	if err != nil {
		return nil, err
	}
	dir = filepath.Join(dir, "keystore")
	if err := os.CopyFS(dir, os.DirFS(b.dir)); err != nil {
		return nil, err
	}
	return device.Open(b.ctx, b.place.uriFor(dir), append(b.place.Options, keystore.WithDir(dir))...)
}

// attester returns the keystore's attestation, if it has one.
func (b *bench) attester() (keystore.Attester, error) {
	a, ok := b.store.(keystore.Attester)
	if !ok {
		return nil, errNotOffered
	}
	return a, nil
}

// expect reports an attack that was not refused as it must be.
func expect(err, want error) error {
	switch {
	case err == nil:
		return errors.New("the device did not refuse")
	case !errors.Is(err, want):
		return fmt.Errorf("refused otherwise than expected: %w", err)
	}
	return nil
}
