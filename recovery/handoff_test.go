package recovery

import (
	"crypto/rand"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/threshold"
	"github.com/reseal-bft/reseal/threshold/thresholdtest"
)

// heldHandoff is a handoff with a dealing of its own, a part that it did not need and, if it is completed, a share of the next epoch and the part
// that made it.
func heldHandoff(t *testing.T, completed bool) (h *handoff, needed, needless *threshold.Part) {
	p := threshold.Params{N: 4, T: 3, F: 1}
	part := func() heldDealing {
		d, err := threshold.Deal(rand.Reader, p, nil)
		require.NoError(t, err)
		part, err := d.Part(2)
		require.NoError(t, err)
		return heldDealing{d.Commitment(), part}
	}
	a, b := part(), part()
	own, err := threshold.Deal(rand.Reader, p, nil)
	require.NoError(t, err)
	h = &handoff{dealing: own, held: map[bft.Digest]heldDealing{}, finished: make(chan struct{})}
	close(h.finished)
	h.hold(a)
	h.hold(b)
	if completed {
		_, shares, err := thresholdtest.Sharing(p)
		require.NoError(t, err)
		secret, err := newSecret(rand.Reader, shares[1], nil, nil)
		require.NoError(t, err)
		h.next = &nextEpoch{secret: secret, held: map[bft.Digest]heldDealing{a.commitment.Digest(): a}}
	}
	return h, a.part, b.part
}

func TestSupersededHandoffLeavesNoSecret(t *testing.T) {
	for _, completed := range []bool{false, true} {
		h, needed, needless := heldHandoff(t, completed)
		dealing, next := h.dealing, h.next
		h.discard()
		_, err := dealing.Part(1)
		require.ErrorIs(t, err, threshold.ErrWiped)
		require.Nil(t, needed.SecretBytes())
		require.Nil(t, needless.SecretBytes())
		require.Nil(t, h.take(), "nothing is left to be put into force")
		if completed {
			require.Nil(t, next.secret.share.SecretBytes())
			require.Zero(t, next.secret.vaultKey)
		}
	}
}

func TestHandoffInForceKeepsWhatMadeIt(t *testing.T) {
	h, needed, needless := heldHandoff(t, true)
	next := h.take()
	require.NotNil(t, next)
	h.wipe(next.held)
	h.discard()
	require.NotNil(t, next.secret.share.SecretBytes())
	require.NotNil(t, needed.SecretBytes(), "others may ask for points")
	require.Nil(t, needless.SecretBytes())
}

func TestPartReceivedAgainWipesTheOneBefore(t *testing.T) {
	h, needed, _ := heldHandoff(t, false)
	again, err := threshold.ParsePart(needed.SecretBytes())
	require.NoError(t, err)
	for _, d := range h.held {
		if d.part == needed {
			h.hold(heldDealing{d.commitment, again})
		}
	}
	require.Nil(t, needed.SecretBytes())
	require.NotNil(t, again.SecretBytes())
}
