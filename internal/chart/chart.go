package chart

import (
	"bytes"
	"fmt"
	"html/template"
	"io"
	"math"
)

// Chart is a picture of lines over a common horizontal axis.
type Chart struct {
	Title string
	// Unit is what the vertical axis measures, and Along what the horizontal one does.
	Unit, Along string
	Series      []Series
	// Linear has the horizontal axis divided evenly; otherwise it is logarithmic, as the vertical
	// one always is.
	Linear bool
	// Labels are the places on the horizontal axis that get a label; a place without text gets its
	// number.
	Labels []Label
}

// Series is one line of a chart.
type Series struct {
	Name  string
	Color string
	// Dash is a pattern such as "6 4"; empty: the line is drawn through.
	Dash   string
	Points []Point
	// Bare leaves the points without marks.
	Bare bool
}

// Point is a measured point; one without a text gets one of its numbers.
type Point struct {
	X, Y float64
	Text string
}

// Label is a label of the horizontal axis.
type Label struct {
	At   float64
	Text string
}

// Colors are those that charts use, in their order.
var Colors = []string{"#0b6e4f", "#2a6f97", "#c1121f", "#e09f3e", "#6a4c93", "#555555"}

// Geometry of a chart in pixels.
const (
	width, height            = 720, 420
	left, right, top, bottom = 70, 240, 40, 50
)

// WriteSVG draws the chart.
func (c *Chart) WriteSVG(w io.Writer) error { return svg.Execute(w, c.draw()) }

// drawing is a chart with the bounds of its axes.
type drawing struct {
	*Chart
	minX, maxX, minY, maxY float64
}

func (c *Chart) draw() *drawing {
	d := &drawing{Chart: c, minX: math.Inf(1), maxX: math.Inf(-1), minY: math.Inf(1), maxY: 1}
	for _, s := range c.Series {
		for _, p := range s.Points {
			d.minX, d.maxX = min(d.minX, p.X), max(d.maxX, p.X)
			d.minY, d.maxY = min(d.minY, p.Y), max(d.maxY, p.Y)
		}
	}
	if math.IsInf(d.minX, 1) { // nothing was measured
		d.minX, d.maxX, d.minY = 1, 1, 1
	}
	for _, l := range c.Labels { // there may be no point at the first and the last of them
		d.minX, d.maxX = min(d.minX, l.At), max(d.maxX, l.At)
	}
	d.minY = math.Pow(10, math.Floor(math.Log10(max(d.minY, 1))))
	if d.maxY = math.Pow(10, math.Ceil(math.Log10(d.maxY))); d.maxY == d.minY {
		d.maxY *= 10
	}
	if d.maxX == d.minX {
		d.maxX = max(1, d.minX*2)
	}
	return d
}

func (d *drawing) x(v float64) float64 {
	if d.Linear {
		return left + (width-left-right)*(v-d.minX)/(d.maxX-d.minX)
	}
	return left + (width-left-right)*math.Log(v/d.minX)/math.Log(d.maxX/d.minX)
}

func (d *drawing) y(v float64) float64 {
	return height - bottom - (height-top-bottom)*math.Log(max(v, 1)/d.minY)/math.Log(d.maxY/d.minY)
}

// mark is a tick with its label, or a measured point with its text.
type mark struct {
	X, Y float64
	Text string
}

// line is a series in pixels.
type line struct {
	Series
	Path   string
	Points []mark
}

// Lines are the series, drawn.
func (d *drawing) Lines() (out []line) {
	for _, s := range d.Series {
		l := line{Series: s}
		var path bytes.Buffer
		for i, p := range s.Points {
			x, y := d.x(p.X), d.y(p.Y)
			fmt.Fprintf(&path, "%c%.1f %.1f ", "ML"[min(i, 1)], x, y)
			if s.Bare {
				continue
			}
			if p.Text == "" {
				p.Text = fmt.Sprintf("%s, %g: %.0f %s", s.Name, p.X, p.Y, d.Unit)
			}
			l.Points = append(l.Points, mark{x, y, p.Text})
		}
		l.Path = path.String()
		out = append(out, l)
	}
	return out
}

// TicksX are the labels of the horizontal axis.
func (d *drawing) TicksX() (out []mark) {
	for _, l := range d.Labels {
		if l.Text == "" {
			l.Text = fmt.Sprint(l.At)
		}
		out = append(out, mark{d.x(l.At), height - bottom, l.Text})
	}
	return out
}

// TicksY label the powers of ten.
func (d *drawing) TicksY() (out []mark) {
	for v := d.minY; v <= d.maxY*1.01; v *= 10 {
		out = append(out, mark{left, d.y(v), fmt.Sprintf("%.0f", v)})
	}
	return out
}

// Legend places the names of the lines.
func (d *drawing) Legend() (out []mark) {
	for i, s := range d.Series {
		out = append(out, mark{width - right + 20, float64(top + 22*i), s.Name})
	}
	return out
}

// Geometry for the template.
func (d *drawing) Width() int      { return width }
func (d *drawing) Height() int     { return height }
func (d *drawing) Left() int       { return left }
func (d *drawing) PlotRight() int  { return width - right }
func (d *drawing) PlotBottom() int { return height - bottom }

var svg = template.Must(template.New("svg").Parse(
	`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{.Width}} {{.Height}}" width="{{.Width}}" height="{{.Height}}" font-family="sans-serif" font-size="12" role="img" aria-label="{{.Title}}">
<rect width="100%" height="100%" fill="#fff"/>
<text x="{{.Left}}" y="22" font-size="15" font-weight="bold">{{.Title}}, {{.Unit}}</text>
{{range .TicksY}}<line x1="{{.X}}" x2="{{$.PlotRight}}" y1="{{.Y}}" y2="{{.Y}}" stroke="#ddd"/><text x="{{.X}}" y="{{.Y}}" dx="-8" dy="4" text-anchor="end">{{.Text}}</text>
{{end}}{{range .TicksX}}<text x="{{.X}}" y="{{.Y}}" dy="18" text-anchor="middle">{{.Text}}</text>
{{end}}<text x="{{.PlotRight}}" y="{{.Height}}" dy="-12" text-anchor="end">{{.Along}}</text>
{{range .Lines}}<path d="{{.Path}}" fill="none" stroke="{{.Color}}" stroke-width="2" stroke-dasharray="{{.Dash}}"/>{{$color := .Color}}
{{range .Points}}<circle cx="{{.X}}" cy="{{.Y}}" r="3.5" fill="{{$color}}"><title>{{.Text}}</title></circle>
{{end}}{{end}}{{range $i, $m := .Legend}}{{with index $.Series $i}}<path d="M{{$m.X}} {{$m.Y}} h24" stroke="{{.Color}}" stroke-width="2" stroke-dasharray="{{.Dash}}"/>{{end}}<text x="{{$m.X}}" y="{{$m.Y}}" dx="30" dy="4">{{$m.Text}}</text>
{{end}}</svg>
`))
