package lint

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/reseal-bft/reseal"

// source is one Go file of the tree.
type source struct {
	path  string // relative to the root, with slashes
	text  []byte
	lines int
	set   *token.FileSet
	file  *ast.File
}

func (s *source) dir() string  { return path.Dir(s.path) }
func (s *source) room() string { return strings.SplitN(s.path, "/", 2)[0] }
func (s *source) test() bool   { return strings.HasSuffix(s.path, "_test.go") }

func (s *source) position(n ast.Node) string {
	return s.path + ":" + strconv.Itoa(s.set.Position(n.Pos()).Line)
}

// alone reports whether nothing but indentation stands before a position.
func (s *source) alone(at token.Position) bool {
	before := s.text[:at.Offset]
	return len(bytes.Trim(before[bytes.LastIndexByte(before, '\n')+1:], "\t")) == 0
}

// imports returns the paths of the packages that the file imports.
func (s *source) imports() []string {
	var paths []string
	for _, spec := range s.file.Imports {
		p, _ := strconv.Unquote(spec.Path.Value)
		paths = append(paths, p)
	}
	return paths
}

// localName returns the name under which the file uses the package with the given path, or "".
func (s *source) localName(importPath string) string {
	for _, spec := range s.file.Imports {
		if p, _ := strconv.Unquote(spec.Path.Value); p != importPath {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path.Base(importPath)
	}
	return ""
}

// selectors calls visit for each use of a name of the package with the given path.
func (s *source) selectors(importPath string, visit func(*ast.SelectorExpr)) {
	local := s.localName(importPath)
	if local == "" {
		return
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		if selector, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := selector.X.(*ast.Ident); ok && x.Name == local {
				visit(selector)
			}
		}
		return true
	})
}

// opens returns the places where the file opens files that may exist, or hands on what opens them.
func (s *source) opens() (uses []ast.Node) {
	fresh := map[ast.Node]bool{} // calls of os.OpenFile that only make a file
	ast.Inspect(s.file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if ok && len(call.Args) == 3 && bytes.Contains(s.text[s.set.Position(call.Args[1].Pos()).Offset:s.set.Position(call.Args[1].End()).Offset], []byte("os.O_EXCL")) {
			fresh[call.Fun] = true
		}
		return true
	})
	s.selectors("os", func(use *ast.SelectorExpr) {
		if slices.Contains([]string{"Open", "OpenFile", "ReadFile", "OpenInRoot", "OpenRoot", "DirFS"}, use.Sel.Name) && !fresh[use] {
			uses = append(uses, use)
		}
	})
	s.selectors("github.com/cockroachdb/pebble/v2/vfs", func(use *ast.SelectorExpr) {
		if use.Sel.Name == "Default" {
			uses = append(uses, use)
		}
	})
	for _, other := range []string{"syscall", "golang.org/x/sys/unix"} {
		s.selectors(other, func(use *ast.SelectorExpr) {
			if slices.Contains([]string{"Open", "Openat"}, use.Sel.Name) {
				uses = append(uses, use)
			}
		})
	}
	return uses
}

// tree parses every Go file of the checkout, nested modules included.
func tree(t *testing.T) []*source {
	t.Helper()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(root, "go.mod"))

	var sources []*source
	err = filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name != root && strings.HasPrefix(entry.Name(), ".") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		s, err := parse(root, name)
		sources = append(sources, s)
		return err
	})
	require.NoError(t, err)
	require.NotEmpty(t, sources)
	return sources
}

func parse(root, name string) (*source, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	relative, err := filepath.Rel(root, name)
	if err != nil {
		return nil, err
	}
	s := &source{path: filepath.ToSlash(relative), text: text, lines: strings.Count(string(text), "\n"), set: token.NewFileSet()}
	s.file, err = parser.ParseFile(s.set, name, text, parser.ParseComments|parser.SkipObjectResolution)
	return s, err
}
