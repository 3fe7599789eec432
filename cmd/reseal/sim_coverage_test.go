package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUncovered(t *testing.T) {
	never, statements, missed, err := uncovered([]byte(`mode: set
github.com/reseal-bft/reseal/bft/votes.go:30.2,31.4 2 0
github.com/reseal-bft/reseal/bft/core.go:10.2,12.3 3 1
github.com/reseal-bft/reseal/bft/core.go:9.1,9.3 1 0
github.com/reseal-bft/reseal/bft/types.go:5.2,5.3 0 0
github.com/reseal-bft/reseal/cmd/reseal/main.go:1.1,2.2 40 0
`))
	require.NoError(t, err)
	require.Equal(t, []branch{{"bft/core.go", 9, 1}, {"bft/votes.go", 30, 2}}, never)
	require.Equal(t, 6, statements, "of the core alone")
	require.Equal(t, 3, missed)
	for _, bad := range []string{"", "mode: set\n", "mode: set\nx 1\n", "mode: set\nbft/x.go:a.1,2.2 1 0\n"} {
		_, _, _, err := uncovered([]byte(bad))
		require.Error(t, err, "%q", bad)
	}
}
