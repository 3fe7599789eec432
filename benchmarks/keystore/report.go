package keystore

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// Report is the outcome of a run.
type Report struct {
	Machine Machine `json:"machine"`
	Rows    []Row   `json:"rows"`
}

// Machine is where it was measured.
type Machine struct {
	CPU   string `json:"cpu"`
	Cores int    `json:"cores"`
	Go    string `json:"go"`
	OS    string `json:"os"`
}

// thisMachine describes the machine.
func thisMachine() Machine {
	m := Machine{CPU: runtime.GOARCH, Cores: runtime.NumCPU(), Go: runtime.Version(), OS: runtime.GOOS}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	return m
}

// WriteJSON writes the report as JSON.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "DEVICE\tOPERATION\tAT ONCE\tMEDIAN MS\tP99 MS\tPER SECOND\tDEVICE'S SHARE")
	for _, row := range r.Rows {
		part := "-"
		if row.DeviceShare > 0 {
			part = fmt.Sprintf("%.0f%%", 100*row.DeviceShare)
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%.3f\t%.3f\t%.0f\t%s\n",
			row.Device, row.Operation, row.Sessions, row.Median/1000, row.P99/1000, row.PerSecond, part)
	}
	return t.Flush()
}

// devices and operations list what the rows are about, in their order.
func (r *Report) devices() (out []string) {
	for _, row := range r.Rows {
		if !slices.Contains(out, row.Device) {
			out = append(out, row.Device)
		}
	}
	return out
}

func (r *Report) operations() (out []string) {
	for _, row := range r.Rows {
		if !slices.Contains(out, row.Operation) {
			out = append(out, row.Operation)
		}
	}
	return out
}

// WritePlot writes keystore.svg into dir, and makes dir if it is missing.
func (r *Report) WritePlot(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "keystore.svg"))
	if err != nil {
		return err
	}
	if err := plot.Execute(f, newChart(r)); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
