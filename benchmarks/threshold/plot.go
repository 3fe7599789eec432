package threshold

import (
	"bytes"
	"fmt"
	"html/template"
	"os"
	"path/filepath"

	"github.com/reseal-bft/reseal/internal/chart"
)

// series is one line of a chart: a measurement of every row.
type series struct {
	Name  string
	Color string
	Dash  string
	value func(Row) float64
}

func sizes(rows []Row) *chart.Chart {
	return newChart("Size of a certificate", "bytes", rows, []series{
		{Name: "BLS threshold signature", Color: "#0b6e4f", value: func(r Row) float64 { return float64(r.CertificateBytes) }},
		{Name: "list of q Ed25519", Color: "#c1121f", value: func(r Row) float64 { return float64(r.ListBytes) }},
		{Name: "list of q ECDSA P-256", Color: "#e09f3e", Dash: "6 4", value: func(r Row) float64 { return float64(r.ECDSAListBytes) }},
	})
}

func times(rows []Row) *chart.Chart {
	return newChart("Making and verifying a certificate", "µs", rows, []series{
		{Name: "verify, BLS", Color: "#0b6e4f", value: func(r Row) float64 { return r.Verify }},
		{Name: "1/16 of a batch of 16, BLS", Color: "#0b6e4f", Dash: "2 4", value: func(r Row) float64 { return r.BatchVerify16 / 16 }},
		{Name: "combine and verify, BLS", Color: "#2a6f97", value: func(r Row) float64 { return r.CombineAndVerify }},
		{Name: "kyber tbls.Recover, BN256", Color: "#6a4c93", value: func(r Row) float64 { return r.KyberRecover }},
		{Name: "verify q Ed25519", Color: "#c1121f", value: func(r Row) float64 { return r.ListVerify }},
		{Name: "verify q Ed25519 as a batch", Color: "#c1121f", Dash: "2 4", value: func(r Row) float64 { return r.ListBatchVerify }},
		{Name: "verify q ECDSA P-256", Color: "#e09f3e", value: func(r Row) float64 { return r.ECDSAListVerify }},
	})
}

func handoffs(rows []Row) *chart.Chart {
	return newChart("Handing over to the next epoch", "µs", rows, []series{
		{Name: "whole handoff, one replica", Color: "#0b6e4f", value: func(r Row) float64 { return r.Reshare }},
		{Name: "make a dealing", Color: "#2a6f97", value: func(r Row) float64 { return r.Deal }},
		{Name: "verify a dealing and a part", Color: "#c1121f", value: func(r Row) float64 { return r.DealingVerify }},
	})
}

// newChart draws measurements over the number of receivers.
func newChart(title, unit string, rows []Row, lines []series) *chart.Chart {
	c := &chart.Chart{Title: title, Unit: unit, Along: "replicas n"}
	for _, l := range lines {
		s := chart.Series{Name: l.Name, Color: l.Color, Dash: l.Dash}
		for _, r := range rows {
			v := l.value(r)
			s.Points = append(s.Points, chart.Point{X: float64(r.N), Y: v, Text: fmt.Sprintf("%s, n=%d: %.0f %s", l.Name, r.N, v, unit)})
		}
		c.Series = append(c.Series, s)
	}
	for _, r := range rows {
		c.Labels = append(c.Labels, chart.Label{At: float64(r.N)})
	}
	return c
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Threshold signatures, measured</title>
<style>body{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}</style>
<h1>Threshold signatures, measured</h1>
<p>{{.Machine.CPU}}, one of {{.Machine.Cores}} cores, {{.Machine.Go}}, {{.Machine.OS}}. Medians of one run; trust the ratios.</p>
{{range .Charts}}{{.}}{{end}}
<ul>{{range .Findings}}<li>{{.}}</li>{{end}}</ul>
<table><tr>{{range .Header}}<th>{{.}}</th>{{end}}</tr>
{{range .Lines}}<tr>{{range .}}<td>{{.}}</td>{{end}}</tr>
{{end}}</table></html>
`))

// WritePlots writes sizes.svg, times.svg, handoff.svg and threshold.html, which stands alone, into dir,
// and makes dir if it is missing.
func (r Report) WritePlots(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var inline []template.HTML
	for _, p := range []struct {
		file  string
		chart *chart.Chart
	}{{"sizes.svg", sizes(r.Rows)}, {"times.svg", times(r.Rows)}, {"handoff.svg", handoffs(r.Rows)}} {
		var b bytes.Buffer
		if err := p.chart.WriteSVG(&b); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, p.file), b.Bytes(), 0o644); err != nil {
			return err
		}
		inline = append(inline, template.HTML(b.String()))
	}
	header, lines := r.cells()
	var b bytes.Buffer
	if err := page.Execute(&b, struct {
		Report
		Charts []template.HTML
		Header []string
		Lines  [][]string
	}{r, inline, header, lines}); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "threshold.html"), b.Bytes(), 0o644)
}

// cells is the table of the page.
func (r Report) cells() (header []string, lines [][]string) {
	header = []string{"µs of one core, or bytes"}
	for _, row := range r.Rows {
		header = append(header, fmt.Sprintf("n=%d", row.N))
	}
	for _, l := range tableLines {
		cells := []string{l.name}
		for _, row := range r.Rows {
			cells = append(cells, fmt.Sprintf("%.0f", l.value(row)))
		}
		lines = append(lines, cells)
	}
	return header, lines
}
