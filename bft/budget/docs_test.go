package budget

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// docs/limits.md has the table of the default limit, in MiB, and the least limits.
func TestThePageSaysWhatTheTableIs(t *testing.T) {
	data, err := os.ReadFile("../../docs/limits.md")
	require.NoError(t, err)
	page := string(data)

	_, table, found := strings.Cut(page, "| what | n = 4 | n = 6 |")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n\n")
	lines := strings.Split(table, "\n")[2:]
	for column, size := range []bft.Size{{F: 1}, {F: 1, C: 1}} {
		budgets, err := Of(Default, size)
		require.NoError(t, err)
		items := budgets.Items()
		for _, line := range lines {
			cells := strings.Split(line, "|")
			name, said := strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2+column])
			together := 1
			if strings.HasPrefix(name, fmt.Sprintf("%d connections of clients", Connections)) {
				together = 2 // with the handshakes
			}
			require.GreaterOrEqual(t, len(items), together, "%s: the table has no more lines", name)
			bytes := int64(0)
			for _, item := range items[:together] {
				of := int64(item.Of)
				if strings.HasSuffix(name, ", of each") {
					of = 1
				}
				bytes += item.Bytes * of
			}
			require.Equal(t, strconv.FormatInt((bytes+1<<19)>>20, 10), said, "n = %d, %q: it is %s", size.N(), name, items[0].Name)
			items = items[together:]
		}
		require.Empty(t, items, "lines that the page does not have")
	}

	least := regexp.MustCompile(`(\d+)(?: MiB)? for (?:n = )?(\d+)`).FindAllStringSubmatch(page, -1)
	require.Len(t, least, 5)
	sizes := map[string]bft.Size{"4": {F: 1}, "6": {F: 1, C: 1}, "7": {F: 2}, "10": {F: 3}, "31": {F: 10}}
	for _, said := range least {
		require.Contains(t, sizes, said[2])
		require.Equal(t, strconv.FormatInt((Least(sizes[said[2]])+1<<20-1)>>20, 10), said[1], "n = %s", said[2])
	}
}
