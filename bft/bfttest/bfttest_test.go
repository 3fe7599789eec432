package bfttest_test

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/bfttest"
)

// counter adds up the numbers that clients send. It is all that an application needs.
type counter struct {
	sum  uint64
	skew func() uint64 // a bug to be found: not the same everywhere
	lose bool          // another: the snapshot forgets
}

func (c *counter) Apply(_ bft.Height, _ int64, operations []bft.Operation, results *bft.Results) error {
	for _, o := range operations {
		c.sum += uint64(len(o.Data))
		if c.skew != nil {
			c.sum += c.skew()
		}
		results.Add(binary.BigEndian.AppendUint64(nil, c.sum))
	}
	return nil
}

func (c *counter) State() bft.State { return sum{c.sum, c.lose} }

func (c *counter) Restore(r io.Reader) error { return binary.Read(r, binary.BigEndian, &c.sum) }

// sum is the counter's immutable state.
type sum struct {
	value uint64
	lose  bool
}

func (s sum) Root() bft.Digest { return sha256.Sum256(binary.BigEndian.AppendUint64(nil, s.value)) }

func (s sum) Query([]byte) (answer, proof []byte, err error) {
	return binary.BigEndian.AppendUint64(nil, s.value), nil, nil
}

func (s sum) WriteTo(w io.Writer) (int64, error) {
	if s.lose {
		s.value++
	}
	return 8, binary.Write(w, binary.BigEndian, s.value)
}

func operation(client, number int) []byte { return make([]byte, client+number%3) }

func TestCounter(t *testing.T) {
	bfttest.Run(t, bfttest.Options{Seeds: 5}, func() bft.Application { return new(counter) }, operation)
}

// recorder is a test that expects failures.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Errorf(string, ...any) { r.failed = true }
func (r *recorder) Helper()               {}

func TestBugsAreFound(t *testing.T) {
	var calls atomic.Uint64
	for name, make := range map[string]func() bft.Application{
		"not deterministic": func() bft.Application { return &counter{skew: func() uint64 { return calls.Add(1) % 7 }} },
		"snapshot forgets":  func() bft.Application { return &counter{lose: true} },
	} {
		r := &recorder{TB: t}
		bfttest.Run(r, bfttest.Options{Seeds: 4}, make, operation)
		require.True(t, r.failed, name)
	}
}

// A replicated counter, tested on one simulated cluster after the other.
func ExampleRun() {
	var t testing.TB = new(testing.T) // in a test: its own t
	bfttest.Run(t, bfttest.Options{Seeds: 1},
		func() bft.Application { return new(counter) },
		func(client, number int) []byte { return []byte("one operation") })
	// Output:
}
