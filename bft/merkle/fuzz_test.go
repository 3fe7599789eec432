package merkle

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What parses as an inner node, which comes from the disk, has one encoding.
func FuzzNode(f *testing.F) {
	f.Add([]byte{0})
	f.Add([]byte{})
	m := sample(100, 1)
	f.Add(encodeNode(m.root.inner))
	f.Fuzz(func(t *testing.T, data []byte) {
		if n, ok := decodeNode(data); ok {
			require.Equal(t, data, encodeNode(n))
		}
	})
}
