package load

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/internal/progress"
)

// memory is a store whose operations take a time, and which can stand still or answer wrongly.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
	takes  time.Duration
	stands time.Time // nothing is answered before
	// put and get change what happens.
	put func(pairs []Pair) ([]Pair, error)
	get func(key string, value []byte) []byte
}

func newMemory(takes time.Duration) *memory {
	return &memory{values: map[string][]byte{}, takes: takes}
}

func (m *memory) wait(ctx context.Context) error {
	m.mu.Lock()
	left := max(m.takes, time.Until(m.stands))
	m.mu.Unlock()
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *memory) Put(ctx context.Context, pairs []Pair) error {
	if err := m.wait(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var err error
	if m.put != nil {
		pairs, err = m.put(pairs)
	}
	for _, p := range pairs {
		m.values[p.Key] = p.Value
	}
	return err
}

func (m *memory) Get(ctx context.Context, keys []string) ([][]byte, error) {
	if err := m.wait(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	values := make([][]byte, len(keys))
	for i, key := range keys {
		values[i] = m.values[key]
		if m.get != nil {
			values[i] = m.get(key, values[i])
		}
	}
	return values, nil
}

func (m *memory) stores(n int) (out []Store) {
	for range n {
		out = append(out, m)
	}
	return out
}

func run(t *testing.T, m *memory, plan Plan, check bool) *Report {
	t.Helper()
	report, err := Run(t.Context(), Options{Plan: plan, Stores: m.stores(plan.Clients), Check: check, Show: progress.New(io.Discard)})
	require.NoError(t, err)
	return report
}

func TestClientsAskAgainWhenTheyHaveTheirAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, newMemory(10*time.Millisecond), Plan{Clients: 4, Reads: 0.5, Values: Range{0, 100}, Envelope: Exactly(2), Keys: 10, Duration: time.Second}, false)
		require.NoError(t, r.Failed())
		require.Equal(t, 800, r.Reads.Operations+r.Writes.Operations)
		require.InDelta(t, 400, r.Reads.Operations, 100)
		require.InDelta(t, 800, r.Reads.PerSecond+r.Writes.PerSecond, 1)
		require.InDelta(t, 10, r.Writes.P999, 0.1)

		r = run(t, newMemory(10*time.Millisecond), Plan{Clients: 2, InFlight: 16, Values: Exactly(100), Envelope: Exactly(1), Keys: 10, Duration: time.Second}, false)
		require.NoError(t, r.Failed())
		require.Equal(t, 3200, r.Writes.Operations, "each has sixteen under way")
	})
}

// A store that stands still for two seconds is measured by all that was due meanwhile: two hundred
// operations that waited one second on average, not the few that were under way.
func TestLatencyCountsFromWhenAnOperationWasDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(time.Millisecond)
		m.stands = time.Now().Add(2 * time.Second)
		r := run(t, m, Plan{Clients: 1, Rate: 1000, Reads: 0, Values: Exactly(8), Envelope: Exactly(1), Keys: 10, Duration: 10 * time.Second}, false)
		require.NoError(t, r.Failed())
		require.InDelta(t, 10_000, r.Writes.Operations, 400)
		slow := 0
		for _, bar := range r.Writes.Histogram.Distribution() {
			if bar.From > 500_000 {
				slow += int(bar.Count)
			}
		}
		require.InDelta(t, 1500, slow, 200, "those due in the first one and a half of two seconds")
		require.InDelta(t, 2000, r.Writes.Max, 50)
		require.InDelta(t, 2000, r.LongestGapMS, 50)
	})
}

func TestARequestThatIsNotAnsweredInTimeHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(0)
		m.stands = time.Now().Add(time.Hour)
		r := run(t, m, Plan{Clients: 2, Values: Exactly(8), Envelope: Exactly(3), Keys: 1, Duration: time.Second, Timeout: 5 * time.Second}, false)
		require.Equal(t, 6, r.Writes.Failed)
		require.ErrorContains(t, r.Failed(), "6 operations failed, first: context deadline exceeded")
	})
}

func TestWhatClientsOfTheirOwnKeysMustFind(t *testing.T) {
	plan := Plan{Clients: 1, Reads: 0.5, Values: Exactly(64), Envelope: Exactly(4), Duration: time.Second}
	for name, c := range map[string]struct {
		get  func(string, []byte) []byte
		says error
	}{
		"all is there":  {func(_ string, v []byte) []byte { return v }, nil},
		"one is lost":   {func(string, []byte) []byte { return nil }, ErrLost},
		"one is forged": {func(_ string, v []byte) []byte { return append([]byte{}, append(v[:60:60], 1, 2, 3, 4)...) }, ErrForged},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory(time.Millisecond)
				m.get = c.get
				r := run(t, m, plan, false)
				if c.says == nil {
					require.NoError(t, r.Failed())
				} else {
					require.ErrorContains(t, r.Failed(), c.says.Error())
				}
			})
		})
	}
}

func TestPorcupineJudges(t *testing.T) {
	plan := Plan{Clients: 2, Reads: 0.5, Values: Range{8, 64}, Envelope: Range{1, 3}, Keys: 5, Duration: 100 * time.Millisecond, Timeout: 10 * time.Second}
	var first []byte
	count := 0
	for name, c := range map[string]struct {
		put    func([]Pair) ([]Pair, error)
		get    func(string, []byte) []byte
		result string
	}{
		"a store as it should be": {nil, nil, linearizable},
		"writes that fail and are executed all the same": {func(p []Pair) ([]Pair, error) {
			if count++; count%3 == 0 {
				return p, errors.New("no answer")
			}
			return p, nil
		}, nil, linearizable},
		"writes that are lost": {func(p []Pair) ([]Pair, error) {
			if count++; count >= 30 {
				return nil, nil
			}
			return p, nil
		}, nil, notLinearizable},
		"a read that is stale": {nil, func(key string, value []byte) []byte {
			if first == nil {
				first = value
			}
			if count++; count == 30 {
				return first
			}
			return value
		}, notLinearizable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				count, first = 0, nil
				m := newMemory(time.Millisecond)
				m.put, m.get = c.put, c.get
				plan := plan
				if c.result == notLinearizable {
					plan.Keys = 1 // what is lost or stale is certainly of a key that is used
				}
				r := run(t, m, plan, true)
				require.Equal(t, c.result, r.Check.Result, r.Check.Detail)
				require.Greater(t, r.Check.Operations, 100)
			})
		})
	}
}

func TestAHistoryThatIsNotJudgedInTimeIsUndecided(t *testing.T) {
	h := NewHistory(nil)
	h.Note(&Request{Pairs: []Pair{{}}, touched: []touch{{key: 1, value: 1}}})
	require.Equal(t, undecided, h.Judge(0).Result)
	require.ErrorContains(t, (&Report{Check: &Verdict{Result: undecided}}).Failed(), undecided)
}

func TestTheHistoryHasABound(t *testing.T) {
	full := 0
	h := NewHistory(func() { full++ })
	h.room = 2
	for range 3 {
		h.Note(&Request{Pairs: []Pair{{}}, touched: []touch{{key: 1, value: 1}}, Err: errors.New("no answer")})
	}
	require.Equal(t, 1, full)
	require.Equal(t, int64(math.MaxInt64), h.entries[0].answer)
}

func TestReportsOfSeveralMachinesAreSummedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(10 * time.Millisecond)
		plan := Plan{Clients: 2, Reads: 0.5, Values: Exactly(8), Envelope: Exactly(1), Keys: 10, Duration: 3 * time.Second}
		first := run(t, m, plan, true)
		m.takes = 100 * time.Millisecond
		plan.Clients = 3
		second := run(t, m, plan, true)

		var read []*Report
		for _, r := range []*Report{first, second} {
			text, err := json.Marshal(r)
			require.NoError(t, err)
			back := new(Report)
			require.NoError(t, json.Unmarshal(text, back))
			again, err := json.Marshal(back)
			require.NoError(t, err)
			require.JSONEq(t, string(text), string(again))
			read = append(read, back)
		}
		_, err := Merge(read)
		require.ErrorContains(t, err, "at the same time")
		_, err = Merge([]*Report{read[0], read[0]})
		require.ErrorContains(t, err, "name each once")
		read[1].Began = read[1].Began.Add(-time.Second)
		read[0].ReadsAre, read[0].Plan.Rate, read[1].ReadsAre = "old", 10, "new"
		merged, err := Merge(read)
		require.NoError(t, err)
		require.Equal(t, "old; and new", merged.ReadsAre)
		require.Zero(t, merged.Plan.Rate, "one of them had none")
		require.Equal(t, 2, merged.Machines)
		require.Equal(t, 5, merged.Plan.Clients)
		require.Equal(t, first.Reads.Operations+second.Reads.Operations, merged.Reads.Operations)
		require.EqualValues(t, merged.Writes.Operations, merged.Writes.Histogram.TotalCount())
		require.Greater(t, merged.Seconds, 5.0)
		require.InDelta(t, float64(merged.Reads.Operations)/merged.Seconds, merged.Reads.PerSecond, 0.01)
		require.Equal(t, linearizable, merged.Check.Result)
		total := 0
		for _, s := range merged.Samples {
			total += s.Reads.Operations
		}
		require.Equal(t, merged.Reads.Operations, total)
		require.NoError(t, merged.Failed())

		read[1].Interval = 10
		_, err = Merge(read)
		require.ErrorContains(t, err, "merge reports of runs with one --duration")
		_, err = Merge(nil)
		require.Error(t, err)
		require.Error(t, json.Unmarshal([]byte(`{"reads":{"histogram":"AAAA"}}`), new(Report)))
		_, err = Merge([]*Report{{Interval: 1}})
		require.Error(t, err, "a report without histograms")
	})
}

func TestPlotsAreDrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := Plan{Clients: 8, Reads: 0.5, Values: Exactly(8), Envelope: Exactly(1), Keys: 10, Duration: 5 * time.Second}
		r := run(t, newMemory(1100*time.Millisecond), plan, false) // nothing is answered in the first second
		dir := filepath.Join(t.TempDir(), "plots")
		require.NoError(t, r.WritePlots(dir))
		require.NoError(t, (&Report{}).WritePlots(t.TempDir()), "nothing measured is no reason to fall")
		for _, name := range []string{"latency.svg", "rate.svg", "percentiles.svg"} {
			text, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			require.Contains(t, string(text), "writes")
			require.NotContains(t, string(text), "NaN")
			require.NotContains(t, string(text), "Inf")
			require.NotContains(t, string(text), ` x="-`, "a label beside the picture")
		}
		var table strings.Builder
		require.NoError(t, r.WriteTable(&table))
		require.Contains(t, table.String(), "p99.9")
	})
}

func TestPlansThatCannotWork(t *testing.T) {
	good := Plan{Clients: 1, Values: Exactly(1), Envelope: Exactly(1), Keys: 1, Duration: time.Second, Timeout: time.Second}
	require.NoError(t, good.Validate())
	for says, change := range map[string]func(*Plan){
		"--clients":  func(p *Plan) { p.Clients = 0 },
		"--rate":     func(p *Plan) { p.Rate = -1 },
		"choose up":  func(p *Plan) { p.InFlight = 65 },
		"leave one":  func(p *Plan) { p.InFlight, p.Rate = 2, 10 },
		"--reads":    func(p *Plan) { p.Reads = math.NaN() },
		"--values":   func(p *Plan) { p.Values.To = 2 << 20 },
		"--envelope": func(p *Plan) { p.Envelope.From = 0 },
		"a request":  func(p *Plan) { p.Envelope, p.Values = Exactly(64), Exactly(64<<10) },
		"--keys":     func(p *Plan) { p.Keys = -1 },
		"--duration": func(p *Plan) { p.Duration = -1 },
		"--timeout":  func(p *Plan) { p.Timeout = -1 },
	} {
		p := good
		change(&p)
		assert.ErrorContains(t, p.Validate(), says)
	}
}

func TestRanges(t *testing.T) {
	for text, want := range map[string]Range{"128": {128, 128}, "64-4K": {64, 4096}, "1m": {1 << 20, 1 << 20}, "0": {}} {
		var r Range
		require.NoError(t, r.Set(text))
		require.Equal(t, want, r)
		again, err := json.Marshal(r)
		require.NoError(t, err)
		var back Range
		require.NoError(t, json.Unmarshal(again, &back))
		require.Equal(t, r, back)
	}
	for _, text := range []string{"", "-1", "4-2", "x", "1KK", "1-2-3", "99999999999"} {
		require.Error(t, new(Range).Set(text), text)
	}
}
