package keystore

import (
	"fmt"
	"html/template"
	"math"
)

// chart shows the median of each operation as a bar per device, on a
// logarithmic scale, with a line up to the 99th percentile.
type chart struct {
	Machine Machine
	Height  int
	Groups  []group
	Ticks   []tick
	Legend  []label
}

type group struct {
	Y    float64
	Name string
	Bars []bar
}

type bar struct {
	Y, Width, P99 float64
	Color, Text   string
}

type tick struct {
	X    float64
	Text string
}

type label struct {
	Y           float64
	Color, Name string
}

// Geometry in pixels.
const (
	plotWidth           = 860
	plotLeft, plotRight = 150, 110
	plotTop             = 44
	barHeight, groupGap = 14, 14
	legendLine          = 20
)

var colors = []string{"#0b6e4f", "#2a6f97", "#c1121f", "#e09f3e", "#6a4c93", "#555555"}

// newChart draws the rows of one caller.
func newChart(r *Report) chart {
	devices := r.devices()
	low, high := math.Inf(1), 1.0
	for _, row := range r.Rows {
		low, high = min(low, row.Median), max(high, row.P99)
	}
	low = math.Pow(10, math.Floor(math.Log10(low)))
	high = math.Pow(10, math.Ceil(math.Log10(high)))
	x := func(us float64) float64 {
		return (plotWidth - plotLeft - plotRight) * math.Log(us/low) / math.Log(high/low)
	}
	c := chart{Machine: r.Machine}
	y := float64(plotTop)
	for _, op := range r.operations() {
		g := group{Y: y, Name: op}
		for _, row := range r.Rows {
			if row.Operation != op || row.Sessions != 1 {
				continue
			}
			g.Bars = append(g.Bars, bar{
				Y: y, Width: x(row.Median), P99: x(row.P99), Text: text(row.Median),
				Color: colors[position(devices, row.Device)%len(colors)],
			})
			y += barHeight
		}
		c.Groups = append(c.Groups, g)
		y += groupGap
	}
	for v := low; v <= high*1.01; v *= 10 {
		c.Ticks = append(c.Ticks, tick{plotLeft + x(v), text(v)})
	}
	y += legendLine
	for i, d := range devices {
		c.Legend = append(c.Legend, label{y, colors[i%len(colors)], d})
		y += legendLine
	}
	c.Height = int(y)
	return c
}

func position(list []string, s string) int {
	for i, x := range list {
		if x == s {
			return i
		}
	}
	return 0
}

// text writes microseconds with their unit.
func text(us float64) string {
	if us < 1000 {
		return fmt.Sprintf("%.3g µs", us)
	}
	if us < 1e6 {
		return fmt.Sprintf("%.3g ms", us/1000)
	}
	return fmt.Sprintf("%.3g s", us/1e6)
}

var plot = template.Must(template.New("plot").Funcs(template.FuncMap{
	"add": func(a, b float64) float64 { return a + b },
}).Parse(
	`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 {{.Height}}" width="860" height="{{.Height}}" font-family="sans-serif" font-size="12" role="img" aria-label="Keystore operations: median and 99th percentile">
<rect width="100%" height="100%" fill="#fff"/>
<text x="20" y="22" font-size="15" font-weight="bold">Keystore operations, one caller: median, line to the 99th percentile</text>
{{range .Ticks}}<text x="{{.X}}" y="38" text-anchor="middle" fill="#666">{{.Text}}</text>
{{end}}{{range .Groups}}<text x="140" y="{{add .Y 11}}" text-anchor="end">{{.Name}}</text>
{{range .Bars}}<rect x="150" y="{{.Y}}" width="{{.Width}}" height="12" fill="{{.Color}}"/><line x1="{{add 150 .Width}}" x2="{{add 150 .P99}}" y1="{{add .Y 6}}" y2="{{add .Y 6}}" stroke="{{.Color}}"/><text x="{{add 156 .P99}}" y="{{add .Y 10}}" font-size="10">{{.Text}}</text>
{{end}}{{end}}{{range .Legend}}<rect x="150" y="{{add .Y -10}}" width="12" height="12" fill="{{.Color}}"/><text x="168" y="{{.Y}}">{{.Name}}</text>
{{end}}</svg>
`))
