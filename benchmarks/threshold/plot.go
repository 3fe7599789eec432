package threshold

import (
	"bytes"
	"fmt"
	"html/template"
	"math"
	"os"
	"path/filepath"
)

// A chart has logarithmic axes: the number of receivers, and what is measured.
type chart struct {
	Title  string
	Unit   string
	Series []series

	minX, maxX, minY, maxY float64
}

// series is one line of a chart.
type series struct {
	Name  string
	Color string
	Dash  string
	value func(Row) float64
	rows  []Row
	chart *chart
}

// Geometry of a chart in pixels.
const (
	width, height            = 720, 420
	left, right, top, bottom = 70, 240, 40, 50
)

func sizes(rows []Row) *chart {
	return newChart("Size of a certificate", "bytes", rows, []series{
		{Name: "BLS threshold signature", Color: "#0b6e4f", value: func(r Row) float64 { return float64(r.CertificateBytes) }},
		{Name: "list of q Ed25519", Color: "#c1121f", value: func(r Row) float64 { return float64(r.ListBytes) }},
		{Name: "list of q ECDSA P-256", Color: "#e09f3e", Dash: "6 4", value: func(r Row) float64 { return float64(r.ECDSAListBytes) }},
	})
}

func times(rows []Row) *chart {
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

func handoffs(rows []Row) *chart {
	return newChart("Handing over to the next epoch", "µs", rows, []series{
		{Name: "whole handoff, one replica", Color: "#0b6e4f", value: func(r Row) float64 { return r.Reshare }},
		{Name: "make a dealing", Color: "#2a6f97", value: func(r Row) float64 { return r.Deal }},
		{Name: "verify a dealing and a part", Color: "#c1121f", value: func(r Row) float64 { return r.DealingVerify }},
	})
}

func newChart(title, unit string, rows []Row, lines []series) *chart {
	c := &chart{Title: title, Unit: unit, minX: math.Inf(1), minY: math.Inf(1), maxX: 1, maxY: 1}
	for _, s := range lines {
		s.rows, s.chart = rows, c
		c.Series = append(c.Series, s)
		for _, r := range rows {
			c.minX, c.maxX = min(c.minX, float64(r.N)), max(c.maxX, float64(r.N))
			c.minY, c.maxY = min(c.minY, s.value(r)), max(c.maxY, s.value(r))
		}
	}
	c.minY = math.Pow(10, math.Floor(math.Log10(max(c.minY, 1))))
	c.maxY = math.Pow(10, math.Ceil(math.Log10(c.maxY)))
	if c.maxX == c.minX {
		c.maxX = c.minX * 2
	}
	return c
}

func (c *chart) x(v float64) float64 {
	return left + (width-left-right)*math.Log(v/c.minX)/math.Log(c.maxX/c.minX)
}

func (c *chart) y(v float64) float64 {
	return height - bottom - (height-top-bottom)*math.Log(max(v, 1)/c.minY)/math.Log(c.maxY/c.minY)
}

// Path is the line in SVG's notation.
func (s series) Path() string {
	var b bytes.Buffer
	for i, r := range s.rows {
		fmt.Fprintf(&b, "%c%.1f %.1f ", "ML"[min(i, 1)], s.chart.x(float64(r.N)), s.chart.y(s.value(r)))
	}
	return b.String()
}

// mark is a tick with its label, or a measured point with its text.
type mark struct {
	X, Y float64
	Text string
}

// Points are the measured points.
func (s series) Points() (out []mark) {
	for _, r := range s.rows {
		v := s.value(r)
		out = append(out, mark{s.chart.x(float64(r.N)), s.chart.y(v), fmt.Sprintf("%s, n=%d: %.0f %s", s.Name, r.N, v, s.chart.Unit)})
	}
	return out
}

// TicksX label every n measured.
func (c *chart) TicksX() (out []mark) {
	for _, r := range c.Series[0].rows {
		out = append(out, mark{c.x(float64(r.N)), height - bottom, fmt.Sprint(r.N)})
	}
	return out
}

// TicksY label the powers of ten.
func (c *chart) TicksY() (out []mark) {
	for v := c.minY; v <= c.maxY*1.01; v *= 10 {
		out = append(out, mark{left, c.y(v), fmt.Sprintf("%.0f", v)})
	}
	return out
}

// Legend places the names of the lines.
func (c *chart) Legend() (out []mark) {
	for i, s := range c.Series {
		out = append(out, mark{width - right + 20, float64(top + 22*i), s.Name})
	}
	return out
}

// Geometry for the template.
func (c *chart) Width() int      { return width }
func (c *chart) Height() int     { return height }
func (c *chart) Left() int       { return left }
func (c *chart) PlotRight() int  { return width - right }
func (c *chart) PlotBottom() int { return height - bottom }

var svg = template.Must(template.New("svg").Parse(
	`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{.Width}} {{.Height}}" width="{{.Width}}" height="{{.Height}}" font-family="sans-serif" font-size="12" role="img" aria-label="{{.Title}}">
<rect width="100%" height="100%" fill="#fff"/>
<text x="{{.Left}}" y="22" font-size="15" font-weight="bold">{{.Title}}, {{.Unit}}</text>
{{range .TicksY}}<line x1="{{.X}}" x2="{{$.PlotRight}}" y1="{{.Y}}" y2="{{.Y}}" stroke="#ddd"/><text x="{{.X}}" y="{{.Y}}" dx="-8" dy="4" text-anchor="end">{{.Text}}</text>
{{end}}{{range .TicksX}}<text x="{{.X}}" y="{{.Y}}" dy="18" text-anchor="middle">{{.Text}}</text>
{{end}}<text x="{{.PlotRight}}" y="{{.Height}}" dy="-12" text-anchor="end">replicas n</text>
{{range .Series}}<path d="{{.Path}}" fill="none" stroke="{{.Color}}" stroke-width="2" stroke-dasharray="{{.Dash}}"/>{{$color := .Color}}
{{range .Points}}<circle cx="{{.X}}" cy="{{.Y}}" r="3.5" fill="{{$color}}"><title>{{.Text}}</title></circle>
{{end}}{{end}}{{range $i, $m := .Legend}}{{with index $.Series $i}}<path d="M{{$m.X}} {{$m.Y}} h24" stroke="{{.Color}}" stroke-width="2" stroke-dasharray="{{.Dash}}"/>{{end}}<text x="{{$m.X}}" y="{{$m.Y}}" dx="30" dy="4">{{$m.Text}}</text>
{{end}}</svg>
`))

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
		chart *chart
	}{{"sizes.svg", sizes(r.Rows)}, {"times.svg", times(r.Rows)}, {"handoff.svg", handoffs(r.Rows)}} {
		var b bytes.Buffer
		if err := svg.Execute(&b, p.chart); err != nil {
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
