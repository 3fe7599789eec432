//go:build mutants

package replica

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// Each check of state transfer, of serving others and of the mark that is left out is missed by the
// test of its kind.
func TestPlantedBugsAreFound(t *testing.T) {
	inBubble := func(check func(t *testing.T) error) func(t *testing.T) error {
		return func(t *testing.T) (err error) {
			synctest.Test(t, func(t *testing.T) { err = check(t) })
			return err
		}
	}
	// A few times, since those asked do not wait for the last f answers, which may be the liars'.
	lie := func(name string) func(t *testing.T) error {
		return inBubble(func(t *testing.T) error {
			Plant("") // the honest replica has no bug
			f := newFar(t)
			Plant(planting)
			for range 5 {
				for _, lie := range snapshotLies {
					if lie.name == name {
						if err := checkSnapshotLies(t, f, []snapshotLie{lie}); err != nil {
							return err
						}
					}
				}
			}
			return nil
		})
	}
	for bug, check := range map[string]func(t *testing.T) error{
		"log-signature":          func(t *testing.T) error { return checkLies(t) },
		"log-certificate":        func(t *testing.T) error { return checkLies(t) },
		"log-state":              func(t *testing.T) error { return checkDivergence(t) },
		"head-root":              lie("a forged state, all of a piece"),
		"snapshot-app-root":      lie("a part in the middle with a bit flipped"),
		"largest-snapshot-first": lie("a snapshot larger than it is"),
		"patience-endless":       inBubble(func(t *testing.T) error { return checkDrips(newFar(t)) }),
		"group-key-of-one":       func(t *testing.T) error { return checkGroupKey(t) },
		"merits-forgotten":       func(t *testing.T) error { return checkMerits(t) },
		"share-restless":         inBubble(checkShare),
		"share-many-calls":       inBubble(checkShare),
		"scrutiny-endless":       checkBlocksOfAView,
		"scrutiny-forgetful":     checkSignaturesOfAPeer,
		"blocks-of-others":       checkForeignBlock,
		"words-of-any-view":      checkWordsAhead,
		"mark-tag":               func(t *testing.T) error { return checkMarks() },
		"mark-views":             func(t *testing.T) error { return checkMarks() },
		"mark-final":             func(t *testing.T) error { return checkMarks() },
		"mark-forgiving":         func(t *testing.T) error { return checkMarks() },
		"recall-of-one":          func(t *testing.T) error { return checkRecall(t) },
		"recall-of-few":          func(t *testing.T) error { return checkRecall(t) },
		"recall-unproven":        func(t *testing.T) error { return checkRecall(t) },
	} {
		t.Run(bug, func(t *testing.T) {
			planting = bug
			Plant(bug)
			defer Plant("")
			err := check(t)
			require.Error(t, err)
			t.Log(err)
		})
	}
}

// planting is the bug that a test is about.
var planting string
