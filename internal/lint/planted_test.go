package lint

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Where planted bugs are named: in what asks whether one is in force, and in the tables of the rooms
// that have them.
var (
	asked  = regexp.MustCompile(`\b(?:broken|plant\.Bug|planted)\("([a-z-]+)"\)`)
	tabled = regexp.MustCompile(`(?m)^\t"([a-z]+(?:-[a-z]+)+)":|^\t\w+\s+= "(tpm-[a-z-]+)"`)
)

var tables = []string{"bft/mutants.go", "hsm/mutants.go", "keystore/mutant/mutant.go"}

// plantedBugs are the names of all bugs that a build can plant.
func plantedBugs(sources []*source) []string {
	names := map[string]bool{}
	for _, s := range sources {
		if s.test() {
			continue
		}
		found := asked.FindAllSubmatch(s.text, -1)
		if slices.Contains(tables, s.path) {
			found = append(found, tabled.FindAllSubmatch(s.text, -1)...)
		}
		for _, match := range found {
			names[string(slices.Concat(match[1:]...))] = true
		}
	}
	var list []string
	for name := range names {
		list = append(list, name)
	}
	return list
}

var (
	row      = regexp.MustCompile("(?m)^\\| (.+) \\| `([a-z-]+)` \\| (.+) \\|$")
	finder   = regexp.MustCompile("`([a-z/]+)` (Test\\w+)")
	simSeeds = regexp.MustCompile("`reseal sim`, (\\d+) seeds")
)

// TestEveryPlantedBugHasItsRow: docs/planted.md tells of each rule which bug leaves it out, and what
// finds that. Both exist.
func TestEveryPlantedBugHasItsRow(t *testing.T) {
	page, err := os.ReadFile("../../docs/planted.md")
	require.NoError(t, err)
	sources := tree(t)
	var named []string
	for _, cells := range row.FindAllSubmatch(page, -1) {
		named = append(named, string(cells[2]))
		assert.Truef(t, finder.Match(cells[3]) || simSeeds.Match(cells[3]), "nothing finds %s", cells[2])
	}
	bugs := plantedBugs(sources)
	assert.Greater(t, len(bugs), 80)
	assert.ElementsMatch(t, bugs, named)

	for _, found := range finder.FindAllSubmatch(page, -1) {
		dir, test := string(found[1]), fmt.Sprintf("func %s(", found[2])
		assert.Truef(t, slices.ContainsFunc(sources, func(s *source) bool {
			return s.test() && s.dir() == dir && strings.Contains(string(s.text), test)
		}), "%s has no %s", dir, found[2])
	}
	seeds, err := os.ReadFile("../../bft/sim/mutants_test.go")
	require.NoError(t, err)
	for _, found := range simSeeds.FindAllSubmatch(page, -1) {
		assert.Contains(t, string(seeds), fmt.Sprintf("mutantSeeds = %s\n", found[1]))
	}
}
