package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBranchesThatWereNotReachedArePrinted(t *testing.T) {
	root, err := moduleRoot()
	require.NoError(t, err)
	profile := "mode: set\nexample/bft/size.go:20.28,20.60 1 1\nexample/bft/size.go:34.29,34.60 2 0\nexample/bft/doc.go:1.1,2.1 1 0\n"
	var out bytes.Buffer
	require.NoError(t, tellUncovered(&out, root, []byte(profile)))
	require.Contains(t, out.String(), "bft/doc.go:1: ")
	require.Contains(t, out.String(), "bft/size.go:34: ")
	require.NotContains(t, out.String(), "bft/size.go:20")
	require.Contains(t, out.String(), "3 of 4 statements of the core were never reached, in 2 branches")
	require.Error(t, tellUncovered(&out, root, []byte("mode: set\nnonsense\n")))
	require.Error(t, tellUncovered(&out, root, []byte("mode: set\nexample/bft/doc.go:9999.1,9999.2 1 0\n")))
}
