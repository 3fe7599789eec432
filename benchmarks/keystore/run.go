package keystore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/check"
	"github.com/reseal-bft/reseal/keystore/device"
)

// Options of a run.
type Options struct {
	URIs     []string
	Sessions []int         // numbers of callers at once
	For      time.Duration // how long each operation is repeated
	Keystore []keystore.Option
	Progress io.Writer
}

const (
	minRepeats = 10
	maxRepeats = 20000 // samples of one caller that are kept
	shareBytes = 66    // of a share and a seed, as a replica seals them
)

// Row is one operation on one device by a number of callers.
type Row struct {
	Device    string  `json:"device"`
	Kind      string  `json:"kind"`
	Software  bool    `json:"software"`
	Operation string  `json:"operation"`
	Sessions  int     `json:"sessions"`
	Repeats   int     `json:"repeats"`
	Median    float64 `json:"median_us"`
	P99       float64 `json:"p99_us"`
	PerSecond float64 `json:"per_second"`
	// DeviceShare is the part of the time that the device took, 0 when unknown.
	DeviceShare float64 `json:"device_share,omitempty"`
}

// Run measures the devices one after the other.
func Run(ctx context.Context, o Options) (*Report, error) {
	report := &Report{Machine: thisMachine()}
	for _, uri := range o.URIs {
		rows, err := measureDevice(ctx, uri, o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", uri, err)
		}
		report.Rows = append(report.Rows, rows...)
	}
	return report, nil
}

// operation is what is repeated.
type operation struct {
	name   string
	solo   bool         // makes sense for one caller only
	first  func() error // before all of them; may be nil
	before func() error // before each, not timed; may be nil
	run    func() error
}

// measureDevice makes a keystore on a device, measures, and removes it.
func measureDevice(ctx context.Context, uri string, o Options) (rows []Row, err error) {
	scratch, err := os.MkdirTemp("", "reseal-bench")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	place, err := check.NewPlace(ctx, uri, scratch, o.Keystore)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, place.CleanUp()) }()
	k, err := device.Init(ctx, place.URI, place.Options...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	if err := place.Approve(k); err != nil {
		return nil, err
	}
	st, err := k.Status()
	if err != nil {
		return nil, err
	}
	if err := k.Seal(0, share); err != nil {
		return nil, err
	}
	for _, op := range operations(ctx, k, place) {
		for _, sessions := range o.Sessions {
			if op.solo && sessions > 1 {
				continue
			}
			fmt.Fprintf(o.Progress, "%s: %s, %d at once\n", st.Device, op.name, sessions)
			row, err := measure(ctx, k, op, sessions, o.For)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", op.name, err)
			}
			row.Device, row.Kind, row.Software = st.Device, st.Kind, st.Software
			rows = append(rows, row)
		}
	}
	return rows, nil
}

var share = bytes.Repeat([]byte{0x5a}, shareBytes)

// operations lists what a replica does with its keystore. Advance comes last, as
// it leaves the keystore in another epoch.
func operations(ctx context.Context, k keystore.Keystore, place *check.Place) []operation {
	digest := sha256.Sum256([]byte("reseal bench keystore"))
	ops := []operation{
		{name: "open", solo: true, run: func() error {
			again, err := device.Open(ctx, place.URI, place.Options...)
			if err != nil {
				return err
			}
			return again.Close()
		}},
		{name: "seal", run: func() error { return k.Seal(0, share) }},
		{name: "unseal", run: func() error {
			_, err := k.Unseal(0)
			return err
		}},
	}
	if _, ok := k.(keystore.Attester); ok {
		ops = append(ops, claiming(ctx, place))
	}
	sign := operation{name: "sign", run: func() error {
		_, err := k.Identity().Sign(rand.Reader, digest[:], crypto.SHA256)
		return err
	}}
	sign.first = func() error { return errors.Join(place.Reset(), k.Claim()) }
	ops = append(ops, sign)
	if a, ok := k.(keystore.Attester); ok {
		nonce := bytes.Repeat([]byte{1}, 32)
		ops = append(ops, operation{name: "quote", run: func() error {
			_, err := a.Quote(nonce)
			return err
		}})
	}
	var epoch uint64
	return append(ops, operation{
		name: "advance", solo: true,
		before: func() error { epoch++; return k.Seal(epoch, share) },
		run:    func() error { return k.Advance(epoch) },
	})
}

// claiming claims a boot as often as is asked: the place's PCR can be set back.
func claiming(ctx context.Context, place *check.Place) operation {
	var k keystore.Keystore
	return operation{
		name: "claim", solo: true,
		before: func() (err error) {
			if err = place.Reset(); err == nil {
				k, err = device.Open(ctx, place.URI, place.Options...)
			}
			return err
		},
		run: func() error { return errors.Join(k.Claim(), k.Close()) },
	}
}

// timed is a keystore that knows how long its device took.
type timed interface{ DeviceTime() time.Duration }

// measure repeats an operation by several callers at once.
func measure(ctx context.Context, k keystore.Keystore, op operation, callers int, during time.Duration) (Row, error) {
	if op.first != nil {
		if err := op.first(); err != nil {
			return Row{}, err
		}
	}
	if _, err := op.once(); err != nil { // warm up
		return Row{}, err
	}
	meter, _ := k.(timed)
	var deviceBefore time.Duration
	if meter != nil {
		deviceBefore = meter.DeviceTime()
	}
	samples := make([][]time.Duration, callers)
	failures := make([]error, callers)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() { samples[i], failures[i] = repeat(ctx, op, start.Add(during)) })
	}
	wg.Wait()
	elapsed := time.Since(start)
	if err := errors.Join(failures...); err != nil {
		return Row{}, err
	}
	all := slices.Concat(samples...)
	slices.Sort(all)
	row := Row{
		Operation: op.name, Sessions: callers, Repeats: len(all),
		Median: micros(all[len(all)/2]), P99: micros(all[len(all)*99/100]),
		PerSecond: float64(len(all)) / elapsed.Seconds(),
	}
	if op.before != nil {
		row.PerSecond = float64(len(all)) / total(all).Seconds()
	}
	if meter != nil && op.before == nil && op.name != "open" { // open has a device of its own
		row.DeviceShare = (meter.DeviceTime() - deviceBefore).Seconds() / elapsed.Seconds()
	}
	return row, nil
}

// once runs the operation and times it.
func (op operation) once() (time.Duration, error) {
	if op.before != nil {
		if err := op.before(); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	err := op.run()
	return time.Since(start), err
}

// repeat is one caller.
func repeat(ctx context.Context, op operation, until time.Time) ([]time.Duration, error) {
	var samples []time.Duration
	for len(samples) < minRepeats || time.Now().Before(until) && len(samples) < maxRepeats {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		sample, err := op.once()
		if err != nil {
			return nil, err
		}
		samples = append(samples, sample)
	}
	return samples, nil
}

func total(samples []time.Duration) (sum time.Duration) {
	for _, d := range samples {
		sum += d
	}
	return sum
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
