package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/bft/request"
)

// Plan says what a cluster is asked for.
type Plan struct {
	// Clients is the number of clients, and InFlight how many requests each has under way without a
	// rate; 0: one. With a rate each has as many as a session bears.
	Clients  int `json:"clients"`
	InFlight int `json:"in_flight,omitempty"`
	// Rate is the number of operations due in a second, of all clients; 0: each client asks again
	// when it has an answer.
	Rate float64 `json:"rate,omitempty"`
	// Reads is the fraction of the requests that read.
	Reads float64 `json:"reads"`
	// Values is the size of the values that are written, in bytes, and Envelope the number of
	// operations of one request.
	Values   Range `json:"values"`
	Envelope Range `json:"envelope"`
	// Keys is the number of keys, which all clients share; 0: every write makes a key of its own,
	// and clients read those that they have written.
	Keys int `json:"keys"`
	// Duration is how long operations become due; 0: until the end of the context.
	Duration time.Duration `json:"-"`
	// Timeout is how long one request is waited for; 0: without end.
	Timeout time.Duration `json:"-"`
}

// Range is a number drawn evenly from From to To.
type Range struct{ From, To int }

// Exactly is the range of one number.
func Exactly(n int) Range { return Range{n, n} }

func (r Range) draw(random *rand.Rand) int { return r.From + random.IntN(r.To-r.From+1) }

// String is what [Range.Set] reads.
func (r Range) String() string {
	if r.From == r.To {
		return strconv.Itoa(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// Set parses a number or a range such as 64-4K; K and M stand for 1024 and 1024 squared.
func (r *Range) Set(text string) error {
	from, to, ranged := strings.Cut(text, "-")
	if !ranged {
		to = from
	}
	var err error
	if r.From, err = parseNumber(from); err == nil {
		r.To, err = parseNumber(to)
	}
	if err != nil || r.From > r.To {
		return fmt.Errorf("%q is no number and no range: write 128, 4K or 64-4K", text)
	}
	return nil
}

// Type names the kind of value for a command's help.
func (r *Range) Type() string { return "number|range" }

// MarshalJSON writes the range as its text.
func (r Range) MarshalJSON() ([]byte, error) { return json.Marshal(r.String()) }

// UnmarshalJSON reads it.
func (r *Range) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	return r.Set(text)
}

func parseNumber(text string) (int, error) {
	unit := 1
	switch digits := strings.TrimRight(text, "kKmM"); text[len(digits):] {
	case "k", "K":
		text, unit = digits, 1<<10
	case "m", "M":
		text, unit = digits, 1<<20
	}
	n, err := strconv.ParseUint(text, 10, 31)
	return int(n) * unit, err
}

// Limits of what makes sense in one process. An operation carries a key and a few bytes beside its
// value.
const (
	maxClients  = 4096
	maxKeys     = 100_000_000
	maxDuration = 7 * 24 * time.Hour
)

// Validate refuses what cannot work, before anything is asked.
func (p *Plan) Validate() error {
	switch {
	case p.Clients < 1 || p.Clients > maxClients:
		return fmt.Errorf("--clients %d: choose 1 to %d", p.Clients, maxClients)
	case p.InFlight < 0 || p.InFlight > request.Window:
		return fmt.Errorf("--in-flight %d: choose up to %d, which is what a session bears", p.InFlight, request.Window)
	case p.InFlight > 1 && p.Rate > 0:
		return errors.New("--in-flight with --rate: a rate decides itself how many requests are under way; leave one out")
	case p.Rate < 0 || p.Rate > 10_000_000:
		return fmt.Errorf("--rate %g: choose operations per second, or 0 for as many as the clients get", p.Rate)
	case !(p.Reads >= 0 && p.Reads <= 1):
		return fmt.Errorf("--reads %g: choose a fraction from 0 to 1", p.Reads)
	case p.Values.To > kv.MaxValue:
		return fmt.Errorf("--values %v: a value has at most %d bytes", p.Values, kv.MaxValue)
	case p.Envelope.From < 1 || p.Envelope.To > bft.MaxOperations:
		return fmt.Errorf("--envelope %v: choose 1 to %d operations per request", p.Envelope, bft.MaxOperations)
	case p.Envelope.To*(p.Values.To+128) > bft.MaxRequest:
		return fmt.Errorf("--envelope %v with --values %v: a request has at most %d bytes", p.Envelope, p.Values, bft.MaxRequest)
	case p.Keys < 0 || p.Keys > maxKeys:
		return fmt.Errorf("--keys %d: choose up to %d, or 0 for a new key with every write", p.Keys, maxKeys)
	case p.Duration < 0 || p.Duration > maxDuration:
		return fmt.Errorf("--duration %v: choose up to %v", p.Duration, maxDuration)
	case p.Timeout < 0:
		return fmt.Errorf("--timeout %v: give a time to wait for one request", p.Timeout)
	}
	return nil
}
