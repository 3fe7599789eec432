package recovery

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
)

// What counts as the word of a replica has one encoding, and is no larger than a word can be: it is
// kept for each peer.
func FuzzWord(f *testing.F) {
	f.Add(word{term: transport.Term{Epoch: 7, Base: bft.Digest{1}}, groupKey: "key"}.marshal())
	f.Add(word{}.marshal())
	f.Add([]byte{})
	f.Add(append(word{}.marshal(), make([]byte, 1<<20)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if w, ok := parseWord(data); ok {
			require.Equal(t, data, w.marshal())
			require.LessOrEqual(t, len(data), 1<<10)
		}
	})
}
