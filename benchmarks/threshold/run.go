package threshold

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/reseal-bft/reseal/threshold"
)

// DefaultN are the numbers of receivers that are measured unless others are asked for.
var DefaultN = []int{4, 16, 64, 128, 256}

// Options say what to measure.
type Options struct {
	N        []int     // of receivers; nil is DefaultN
	Progress io.Writer // gets a line per n; nil: none
}

// Run measures. It takes about a minute for DefaultN, and ends early with the context's error when that
// is done. Meanwhile GOMAXPROCS is 1.
func Run(ctx context.Context, o Options) (Report, error) {
	if o.N == nil {
		o.N = DefaultN
	}
	for _, n := range o.N {
		if n < 1 || n > threshold.MaxReceivers {
			return Report{}, fmt.Errorf("n=%d receivers: choose between 1 and %d", n, threshold.MaxReceivers)
		}
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	report := Report{Machine: machine()}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, n := range o.N {
		start := time.Now()
		row, err := measureRow(ctx, n)
		if err != nil {
			return Report{}, fmt.Errorf("measuring n=%d: %w", n, err)
		}
		report.Rows = append(report.Rows, row)
		fmt.Fprintf(o.Progress, "n=%d measured in %.1f s\n", n, time.Since(start).Seconds())
	}
	report.Findings = findings(report.Rows)
	return report, nil
}

func measureRow(ctx context.Context, n int) (Row, error) {
	f := (n - 1) / 3
	p := threshold.Params{N: n, T: n - f, F: f}
	row := Row{N: p.N, Q: p.T}
	m := new(meter)
	for _, prepare := range []func(*meter, threshold.Params, *Row) error{measureSignatures, measureKyber, measureLists, measureDealings} {
		if err := prepare(m, p, &row); err != nil {
			return Row{}, err
		}
		if err := ctx.Err(); err != nil {
			return Row{}, err
		}
	}
	if err := m.run(ctx); err != nil {
		return Row{}, err
	}
	return row, measureHandoff(ctx, p, &row)
}

func machine() Machine {
	return Machine{CPU: cpuName(), Cores: runtime.NumCPU(), Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH}
}

// cpuName reads the processor's name where Linux shows it.
func cpuName() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
