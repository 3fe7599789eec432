package request

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// What parses as an anchor, which any replica may send to a client, or as the record of a session,
// which a snapshot holds, has one encoding.
func FuzzAnchor(f *testing.F) {
	var a Anchor
	a.Header, a.Certificate = certify(9, bft.Digest{1})
	good, err := a.MarshalBinary()
	require.NoError(f, err)
	f.Add(good)
	f.Add(Record{Sequence: 1, Height: 2, Results: bft.Digest{3}}.MarshalBinary())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := ParseRecord(data); err == nil {
			require.Equal(t, data, r.MarshalBinary())
		}
		a, err := ParseAnchor(data)
		if err != nil {
			return
		}
		again, err := a.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, data, again)
		if a.Verify(cluster, groupKey) == nil {
			require.Equal(t, good, data, "a forged anchor verifies")
		}
	})
}
