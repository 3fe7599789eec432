package drill

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDrillsHaveNamesAndSummariesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range All() {
		require.Regexp(t, regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`), d.Name)
		require.False(t, seen[d.Name], d.Name)
		seen[d.Name] = true
		require.NotEmpty(t, d.Summary)
		require.NotNil(t, d.play, d.Name)
		require.NotEmpty(t, d.keystore, d.Name)
	}
}

// TestTheDocumentationNamesEveryDrill keeps the list in docs/operations.md whole.
func TestTheDocumentationNamesEveryDrill(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(text), "\n## Drills\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	named := regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|").FindAllStringSubmatch(section, -1)
	var names, all []string
	for _, match := range named {
		names = append(names, match[1])
	}
	for _, d := range All() {
		all = append(all, d.Name)
	}
	require.Equal(t, all, names)
}

func TestFindNamesWhatIsMissing(t *testing.T) {
	found, err := Find([]string{"stolen-disk", "byzantine-dealer"})
	require.NoError(t, err)
	require.Len(t, found, 2)
	found, err = Find([]string{"all"})
	require.NoError(t, err)
	require.Len(t, found, len(All()))
	_, err = Find([]string{"stolen-disc"})
	require.ErrorContains(t, err, "reseal drill list")
}
