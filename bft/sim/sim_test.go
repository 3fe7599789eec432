package sim

import (
	"os"
	"strconv"
	"testing"
	"time"
)

func TestSeeds(t *testing.T) {
	lo, hi := uint64(1), uint64(40)
	if s := os.Getenv("SEEDS"); s != "" {
		hi, _ = strconv.ParseUint(s, 10, 64)
	}
	if s := os.Getenv("SEED"); s != "" {
		lo, _ = strconv.ParseUint(s, 10, 64)
		hi = lo
	}
	o := Options{Adversary: os.Getenv("ADV")}
	if os.Getenv("NOFAULTS") != "" {
		o.Faults = []string{}
	}
	if os.Getenv("TRACE") != "" {
		f, _ := os.Create(os.Getenv("TRACE"))
		o.Trace = func(l string) { f.WriteString(l + "\n") }
	}
	bad := 0
	for seed := lo; seed <= hi; seed++ {
		start := time.Now()
		r, err := Run(seed, o)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Violations) > 0 || r.Stuck != "" {
			t.Errorf("%d %v %v", seed, r.Violations, r.Stuck)
			bad++
		}
		if seed%5 == 0 || time.Since(start) > 2*time.Second {
			t.Logf("%v %+v", time.Since(start), r)
		}
		if bad > 12 {
			break
		}
	}
}
