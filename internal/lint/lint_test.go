package lint

import (
	"go/ast"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// arrows says which other rooms each directory may import; the longest path that fits counts. What
// is not listed may import all but cmd. The ground may be imported by all, and imports nothing but
// itself.
var arrows = map[string][]string{
	"threshold": {},
	"bft":       {"threshold"},
	"keystore":  {},
	"hsm":       {"keystore"},
	"recovery":  {"bft", "threshold", "keystore"},
	// The intruder plays on all backends; nothing but tests imports it.
	"recovery/recoverytest/devices": {"bft", "keystore", "hsm"},
	// These two bring the backends together, and nothing below imports them.
	"keystore/device": {"hsm"},
	"keystore/check":  {"hsm"},
}

// ground is what every room stands on.
const ground = "internal/files"

func onGround(dir string) bool { return strings.HasPrefix(dir+"/", ground+"/") }

// allowed returns the rooms that a directory may import, and whether it is listed.
func allowed(dir string) (rooms []string, listed bool) {
	for ; dir != "."; dir = path.Dir(dir) {
		if rooms, listed := arrows[dir]; listed {
			return rooms, true
		}
	}
	return nil, false
}

func TestArrowsBetweenRoomsPointOneWay(t *testing.T) {
	for _, s := range tree(t) {
		rooms, listed := allowed(s.dir())
		for _, imported := range s.imports() {
			room, inside := strings.CutPrefix(imported, module+"/")
			if !inside || onGround(room) {
				continue
			}
			assert.Falsef(t, onGround(s.dir()), "%s imports %s", s.path, imported)
			room, _, _ = strings.Cut(room, "/")
			switch {
			case room == s.room():
			case listed:
				assert.Containsf(t, rooms, room, "%s imports %s", s.path, imported)
			default:
				assert.NotEqualf(t, "cmd", room, "%s imports %s", s.path, imported)
			}
		}
	}
}

// stairs lists the rooms within recovery from the bottom up: each may import those above it in the
// list, and none below it.
var stairs = []string{"recovery/internal/plant", "recovery/internal/wire", "recovery/attest", "recovery/governance", "recovery/handoff", "recovery"}

func TestRoomsOfRecoveryAreStairs(t *testing.T) {
	for _, s := range tree(t) {
		step := slices.Index(stairs, s.dir())
		if s.room() != "recovery" || step < 0 {
			continue
		}
		for _, imported := range s.imports() {
			dir, inside := strings.CutPrefix(imported, module+"/")
			if inside && strings.HasPrefix(dir+"/", "recovery/") {
				assert.LessOrEqualf(t, slices.Index(stairs, dir), step, "%s imports %s", s.path, imported)
			}
		}
	}
}

// timeOfCore are the names of package time that the pure core may use: durations, not clocks.
var timeOfCore = []string{"Duration", "Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour"}

// The packages that the core may import are listed beside it, in bft/lint_test.go.
func TestCoreHasNoClockAndNoConcurrency(t *testing.T) {
	for _, s := range tree(t) {
		if s.dir() != "bft" || s.test() {
			continue
		}
		s.selectors("time", func(use *ast.SelectorExpr) {
			assert.Containsf(t, timeOfCore, use.Sel.Name, "%s: the core must not use time.%s", s.position(use), use.Sel.Name)
		})
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n.(type) {
			case *ast.GoStmt, *ast.SelectStmt, *ast.SendStmt, *ast.ChanType:
				assert.Failf(t, "concurrency in the core", "%s", s.position(n))
			}
			return true
		})
	}
}

func TestTestsNeitherSleepNorSkip(t *testing.T) {
	for _, s := range tree(t) {
		if !s.test() {
			continue
		}
		s.selectors("time", func(use *ast.SelectorExpr) {
			assert.NotEqualf(t, "Sleep", use.Sel.Name, "%s: wait on a condition with a deadline, or drive a clock", s.position(use))
		})
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if use, ok := call.Fun.(*ast.SelectorExpr); ok && isTestVariable(use.X) {
				assert.NotContainsf(t, []string{"Skip", "Skipf", "SkipNow"}, use.Sel.Name, "%s: fail and name the package to install", s.position(call))
			}
			return true
		})
	}
}

// isTestVariable goes by the names that testing.T, B, F and TB have everywhere.
func isTestVariable(e ast.Expr) bool {
	x, ok := e.(*ast.Ident)
	return ok && slices.Contains([]string{"t", "b", "f", "tb"}, x.Name)
}

// stages read what they have made themselves, or what the kernel makes.
var stages = []string{
	"benchmarks", "hsm/softhsm", "internal/actor", "internal/drill", "internal/process", "internal/stage", "internal/wholesim", "keystore/check",
	"keystore/keystoretest", "keystore/swtpm", "recovery/recoverytest",
}

// TestFilesAreOpenedInOnePlace: a pipe in place of a file must not make a program wait for ever, so
// what exists is opened by one package, which looks what it is. To make a file that does not exist
// is anybody's.
func TestFilesAreOpenedInOnePlace(t *testing.T) {
	for _, s := range tree(t) {
		staged := slices.ContainsFunc(stages, func(dir string) bool { return strings.HasPrefix(s.path, dir+"/") })
		if s.test() || staged || onGround(s.dir()) {
			continue
		}
		for _, use := range s.opens() {
			assert.Failf(t, "a file is opened as it is", "%s: read it by %s, or by %s/dbfs", s.position(use), ground, ground)
		}
	}
}

func TestEveryPackageHasItsDocumentation(t *testing.T) {
	packages := map[string]bool{}
	for _, s := range tree(t) {
		if s.test() {
			continue
		}
		packages[s.dir()] = packages[s.dir()] || path.Base(s.path) == "doc.go" && s.file.Doc != nil
	}
	for dir, documented := range packages {
		assert.Truef(t, documented, "%s has no doc.go with a package comment", dir)
	}
}

func TestFilesCanBeReadInOneGo(t *testing.T) {
	const limit = 600
	for _, s := range tree(t) {
		if !generated(s) {
			assert.LessOrEqualf(t, s.lines, limit, "%s: split it", s.path)
		}
	}
}

// TestProseFitsBesideCode: a line of a comment that stands alone is at most so wide, a tab being
// four columns.
func TestProseFitsBesideCode(t *testing.T) {
	const limit = 110
	for _, s := range tree(t) {
		for _, group := range s.file.Comments {
			for _, comment := range group.List {
				at := s.set.Position(comment.Pos())
				if text := comment.Text; strings.HasPrefix(text, "// ") && s.alone(at) {
					assert.LessOrEqualf(t, 4*(at.Column-1)+len([]rune(text)), limit, "%s:%d: break the line", s.path, at.Line)
				}
			}
		}
	}
}

func generated(s *source) bool {
	return slices.ContainsFunc(s.file.Comments, func(c *ast.CommentGroup) bool {
		return strings.HasPrefix(c.Text(), "Code generated ") && strings.Contains(c.Text(), "DO NOT EDIT.")
	})
}
