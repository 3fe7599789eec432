package threshold

import (
	"crypto/rand"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCertifiedDealings is a handoff as a protocol runs it: dealings are acknowledged with partial
// signatures of the current epoch, T acknowledgements certify one, a receiver that was away and one that
// its dealer cheated complete their parts from others, and a dealing that too few could acknowledge is
// left out.
func TestCertifiedDealings(t *testing.T) {
	p := defaultParams
	g := generate(t, p, 2)
	const away, cheated = 6, 2
	dealings, certified := map[int]*Dealing{}, map[int]*Commitment{}
	held := map[int]map[int]*Part{} // by dealer and receiver
	for dealer := 1; dealer <= 5; dealer++ {
		d, err := Redeal(rand.Reader, p, []byte{byte(dealer)}, g.shares[dealer-1])
		require.NoError(t, err)
		dealings[dealer], held[dealer] = d, map[int]*Part{}
		c := d.Commitment()
		var acknowledgements []PartialSignature
		for j := 1; j <= p.N; j++ {
			part := partOf(t, d, j)
			if dealer == 3 && j == cheated || dealer == 5 && j > 2 {
				part.row[0], part.row[1] = part.row[1], part.row[0]
			}
			if j == away || c.VerifyRedeal(g.sharing, dealer) != nil || c.VerifyPart(part) != nil {
				continue
			}
			held[dealer][j] = part
			acknowledgements = append(acknowledgements, g.shares[j-1].Sign(c.AcknowledgementMessage()))
		}
		certificate, bad, err := g.sharing.Combine(c.AcknowledgementMessage(), acknowledgements)
		require.Empty(t, bad)
		if dealer == 5 {
			require.ErrorIs(t, err, ErrTooFewPartials, "two receivers got a part")
			continue
		}
		require.NoError(t, err)
		require.NoError(t, g.sharing.GroupKey().Verify(c.AcknowledgementMessage(), certificate))
		certified[dealer] = c
	}

	tr, err := Resharing(g.sharing, certified)
	require.NoError(t, err)
	next := &testGroup{sharing: tr.Sharing()}
	for j := 1; j <= p.N; j++ {
		parts := map[int]*Part{}
		for dealer, c := range certified {
			parts[dealer] = held[dealer][j]
			if parts[dealer] == nil {
				parts[dealer] = completedFromAll(t, c, held[dealer], j)
			}
		}
		share, err := tr.Share(parts)
		require.NoError(t, err)
		next.shares = append(next.shares, share)
	}
	msg := []byte("the next epoch")
	sig, _, err := next.sharing.Combine(msg, next.sign(msg, away, cheated, 1, 5))
	require.NoError(t, err)
	require.NoError(t, g.sharing.GroupKey().Verify(msg, sig))
}

// completedFromAll asks everybody who holds a part, one of whom lies.
func completedFromAll(t *testing.T, c *Commitment, held map[int]*Part, receiver int) *Part {
	var points []Point
	for from := 1; from <= c.Params().N; from++ {
		part := held[from]
		if part == nil {
			continue
		}
		to := receiver
		if from == 1 {
			to = receiver%c.Params().N + 1 // a lie: what it holds for another
		}
		point, err := part.Point(to)
		require.NoError(t, err)
		point.To = receiver
		points = append(points, point)
	}
	part, bad, err := c.Complete(receiver, points)
	require.NoError(t, err)
	require.Equal(t, []int{1}, bad)
	_, err = part.Point(1)
	require.ErrorIs(t, err, errNoColumn)
	return part
}
