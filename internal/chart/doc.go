// Package chart draws lines as SVG that stands alone: what benchmarks and load runs have measured.
package chart
