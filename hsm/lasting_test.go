package hsm_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/hsm"
	"github.com/stretchr/testify/require"
)

// TestKeysThatCannotBeDestroyed: somebody who had the PIN leaves keys that the token made, with all
// the attributes of a sealing's key, and that it does not destroy. They keep no epoch from ending,
// and no keystore from opening.
func TestKeysThatCannotBeDestroyed(t *testing.T) {
	s, tok, dir := newStore(t, "lasting")
	i := newIntruder(t, tok)
	for epoch := range uint64(4) {
		for last := range byte(3) {
			_, err := i.generate(with(hsm.SealingTemplate(s), attribute(pkcs11.CKA_DESTROYABLE, false),
				attribute(pkcs11.CKA_ID, append(guessedID(epoch, 1)[:31], last)))...)
			require.NoError(t, err)
		}
	}
	stolen := filepath.Join(t.TempDir(), "stolen")
	require.NoError(t, os.CopyFS(stolen, os.DirFS(dir)))
	require.NoError(t, s.Seal(1, []byte("share")))
	require.NoError(t, s.Seal(2, []byte("next")))
	require.NoError(t, s.Advance(2))
	require.Empty(t, opensFrom(t, tok.URI(), stolen, 1))
	require.NoError(t, s.Close())
	s, err := hsm.Open(t.Context(), tok.URI(), options(dir))
	require.NoError(t, err)
	require.Equal(t, "next", opened(t, s, 2))
	st, err := s.Status()
	require.NoError(t, err)
	require.NotEmpty(t, st.Cautions)
	require.NoError(t, s.Close())
}
