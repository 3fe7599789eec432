package tpm

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzAnswer reads answers of a TPM to TPM2_GetTime: whatever comes, the parameters stay as
// they are, and an answer that was read is read again the same.
func FuzzAnswer(f *testing.F) {
	header := []byte{0x80, 2, 0, 0, 0, 0, 0, 0, 0, 0}
	auth := append(append([]byte{0, 16}, make([]byte, 16)...), 0, 0, 0)
	second := []byte{0, 1, 7, 1, 0, 2, 8, 8}
	f.Add(bytes.Join([][]byte{header, {0, 0, 0, 3}, []byte("say"), auth, second}, nil))
	f.Add(bytes.Join([][]byte{header, {0, 0, 0, 0}, {0, 0, 1, 0, 0}}, nil))
	f.Add(bytes.Join([][]byte{header, {0xff, 0xff, 0xff, 0xff}, auth}, nil))
	f.Add(header)
	f.Fuzz(func(t *testing.T, rsp []byte) {
		given := bytes.Clone(rsp)
		out, err := asEmptyAuth(rsp)
		require.Equal(t, given, rsp, "what the TPM said is not changed")
		if err != nil {
			return
		}
		again, err := asEmptyAuth(out)
		require.NoError(t, err)
		require.Equal(t, out, again)
		require.Equal(t, given[6:headerSize+4], out[6:headerSize+4])
	})
}
