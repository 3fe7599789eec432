package threshold

import (
	"bytes"
	"crypto/rand"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// zeros is randomness that is none.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestBatchWithoutRandomness: two signatures that are wrong by opposite amounts cancel in a sum
// with equal or known coefficients. Whatever the randomness is worth, they are found.
func TestBatchWithoutRandomness(t *testing.T) {
	g := generate(t, defaultParams, 2)
	sign := func(msg string) curve.G1 {
		s, _, err := g.sharing.Combine([]byte(msg), g.sign([]byte(msg), 1, 2, 3, 4))
		require.NoError(t, err)
		var p curve.G1
		require.NoError(t, s.decode(&p))
		return p
	}
	a, b, error := sign("a"), sign("b"), sign("c")
	for _, multiple := range []uint64{1, 2, 3, 1 << 40} {
		var k curve.Fr
		k.SetSmall(multiple)
		by := curve.Mult1(&error, &k)
		wrongA, wrongB := curve.Add1(&a, &by), curve.Sub1(&b, &error)
		items := []BatchItem{
			{Key: g.sharing.GroupKey(), Message: []byte("a"), Signature: Signature(wrongA.Compress())},
			{Key: g.sharing.GroupKey(), Message: []byte("b"), Signature: Signature(wrongB.Compress())},
		}
		require.ErrorIs(t, VerifyBatch(zeros{}, items), ErrInvalidSignature)
		require.ErrorIs(t, VerifyBatch(bytes.NewReader(bytes.Repeat([]byte{1}, 64)), items), ErrInvalidSignature)
	}
}

// TestCompleteWithEveryExceptionalPoint: a liar chooses his point among the values at which
// formulas fail. He is named, the part comes out right from the others' points, and whatever is
// returned verifies.
func TestCompleteWithEveryExceptionalPoint(t *testing.T) {
	d := dealt(t, defaultParams)
	c := d.Commitment()
	const victim = 6
	point := func(from int) Point {
		p, err := partOf(t, d, from).Point(victim)
		require.NoError(t, err)
		return p
	}
	for w := uint(0); w < 255; w += 4 {
		for digit := uint64(0); digit <= 16; digit++ {
			var k, sixteen curve.Fr
			k.SetSmall(digit)
			sixteen.SetSmall(16)
			for range w / 4 {
				k.Mul(&k, &sixteen)
			}
			lie := Point{From: 1, To: victim, value: &k}
			part, bad, err := c.Complete(victim, []Point{lie, point(2), point(3)})
			require.NoError(t, err)
			require.Equal(t, []int{1}, bad)
			require.NoError(t, c.VerifyCompleted(part))
			_, bad, err = c.Complete(victim, []Point{lie, point(2)})
			var few *BadPointsError
			require.ErrorAs(t, err, &few)
			require.Equal(t, []int{1}, bad)
			require.Equal(t, 1, few.Need)
		}
	}
}

// TestDealingOfChosenCoefficients: a dealer chooses its polynomial so that coefficients, rows and
// points are zero or exceptional. What it commits to is what its parts are checked against, or it
// commits to nothing.
func TestDealingOfChosenCoefficients(t *testing.T) {
	p := Params{N: 4, T: 3, F: 1}
	var exceptional curve.Fr // 14 * 16^63
	exceptional.SetSmall(14)
	var sixteen curve.Fr
	sixteen.SetSmall(16)
	for range 63 {
		exceptional.Mul(&exceptional, &sixteen)
	}
	for name, at := range map[string]func(i int) curve.Fr{
		"all exceptional": func(int) curve.Fr { return exceptional },
		"one exceptional": func(i int) curve.Fr {
			if i == 2 {
				return exceptional
			}
			var x curve.Fr
			x.SetSmall(uint64(i + 1))
			return x
		},
		"zero but for the secret": func(i int) curve.Fr {
			if i == 0 {
				return exceptional
			}
			return curve.Fr{}
		},
	} {
		coefficients := make([]curve.Fr, p.rows()*p.columns())
		for i := range coefficients {
			coefficients[i] = at(i)
		}
		d := &Dealing{commitment: commit(p, nil, coefficients), coefficients: coefficients}
		c := d.Commitment()
		require.NoError(t, c.Verify(), name)
		for j := 1; j <= p.N; j++ {
			require.NoError(t, c.VerifyPart(partOf(t, d, j)), name)
		}
		wrong := partOf(t, d, 2)
		wrong.row[1].Add(&wrong.row[1], &exceptional)
		require.ErrorIs(t, c.VerifyPart(wrong), ErrInconsistent, name)
	}
}

// TestColumnsOfFReplicasTellNothingAndOfOneMoreTellAll is the privacy of a dealing, exactly: with
// the parts of F receivers every secret is possible; those of F+1 give it.
func TestColumnsOfFReplicasTellNothingAndOfOneMoreTellAll(t *testing.T) {
	for _, p := range []Params{{N: 4, T: 3, F: 1}, {N: 6, T: 4, F: 1}, {N: 9, T: 6, F: 2}} {
		d := dealt(t, p)
		// F+1 columns phi(x, j) give phi(0, j) for F+1 values of y, so phi(0, 0).
		var xs []uint16
		var values []curve.Fr
		for j := 1; j <= p.F+1; j++ {
			xs, values = append(xs, uint16(j)), append(values, partOf(t, d, j).column[0])
		}
		secret := curve.Interpolate(xs, values)[0]
		require.True(t, secret.Equal(&d.coefficients[0]))

		// F parts: phi + c*(y-1)...(y-F)*(x-1)...(x-F) has the same parts for those F receivers,
		// and another secret. Its degrees are F in y and F < T in x.
		vanishing := []curve.Fr{{}}
		vanishing[0].SetSmall(1)
		for j := 1; j <= p.F; j++ {
			next := make([]curve.Fr, len(vanishing)+1)
			var root curve.Fr
			root.SetSmall(uint64(j))
			for i := range vanishing {
				var term curve.Fr
				term.Mul(&vanishing[i], &root)
				next[i].Sub(&next[i], &term)
				next[i+1].Add(&next[i+1], &vanishing[i])
			}
			vanishing = next
		}
		other := append([]curve.Fr(nil), d.coefficients...)
		for l := range vanishing {
			for k := range vanishing {
				var term curve.Fr
				term.Mul(&vanishing[l], &vanishing[k])
				at := l*p.columns() + k
				other[at].Add(&other[at], &term)
			}
		}
		twin := &Dealing{commitment: commit(p, nil, other), coefficients: other}
		require.False(t, twin.coefficients[0].Equal(&d.coefficients[0]), "another secret")
		for j := 1; j <= p.F; j++ {
			require.True(t, partOf(t, d, j).Equal(partOf(t, twin, j)), "the same part of receiver %d", j)
		}
	}
}

// TestFPointsForAReceiverTellNothingOfItsShare: they are consistent with every share, and one more
// gives it.
func TestFPointsForAReceiverTellNothingOfItsShare(t *testing.T) {
	p := Params{N: 9, T: 6, F: 2}
	d := dealt(t, p)
	const receiver = 9
	var xs []uint16
	var values []curve.Fr
	for from := 1; from <= p.F; from++ {
		point, err := partOf(t, d, from).Point(receiver)
		require.NoError(t, err)
		xs, values = append(xs, uint16(from)), append(values, *point.value)
	}
	for claim := range uint64(4) { // any share at all, as the value at 0
		var share curve.Fr
		share.SetSmall(claim)
		row := curve.Interpolate(append([]uint16{0}, xs...), append([]curve.Fr{share}, values...))
		require.Len(t, row, p.F+1, "of the degree of a row")
		for i, x := range xs {
			var at curve.Fr
			at.Eval(row, len(row), 1, uint64(x))
			require.True(t, at.Equal(&values[i]))
		}
		require.True(t, row[0].Equal(&share))
	}
	point, err := partOf(t, d, p.F+1).Point(receiver)
	require.NoError(t, err)
	row := curve.Interpolate(append(xs, uint16(p.F+1)), append(values, *point.value))
	require.True(t, row[0].Equal(&partOf(t, d, receiver).row[0]))
}

// TestAcknowledgementsCountOnce: repeated ones, those under another's index, and those of another
// epoch certify nothing.
func TestAcknowledgementsCountOnce(t *testing.T) {
	p := defaultParams
	g := generate(t, p, 2)
	next := reshare(t, g, p, upTo(1, 4))
	message := dealt(t, p).Commitment().AcknowledgementMessage()
	three := g.sign(message, 1, 2, 3)
	as := func(index int, s Signature) PartialSignature { return PartialSignature{Index: index, Signature: s} }
	for name, more := range map[string][]PartialSignature{
		"repeated":              {three[0], three[1], three[2], three[0]},
		"under another's index": {as(4, three[0].Signature), as(5, three[1].Signature), as(6, three[2].Signature)},
		"of another epoch":      next.sign(message, 4, 5, 6),
		"index 0":               {as(0, g.shares[3].Sign(message).Signature)},
		"index above N":         {as(p.N+1, g.shares[3].Sign(message).Signature), as(1<<40, three[0].Signature), as(-4, three[0].Signature)},
		"infinity":              {as(4, Signature{0: 0xc0})},
		"no compression flag":   {as(4, Signature{})},
	} {
		_, _, err := g.sharing.Combine(message, append(append([]PartialSignature(nil), three...), more...))
		require.ErrorIs(t, err, ErrTooFewPartials, name)
	}
	_, bad, err := g.sharing.Combine(message, append(next.sign(message, 4, 5, 6), g.sign(message, 1, 2, 3, 4)...))
	require.NoError(t, err, "and do not keep the good ones from counting")
	require.Equal(t, []int{4, 5, 6}, bad)
}

// TestZeroValuesAndNilsAreRefused: an importer who forgets an error, or takes what nobody made,
// gets an error.
func TestZeroValuesAndNilsAreRefused(t *testing.T) {
	g := generate(t, defaultParams, 2)
	var noCommitment *Commitment
	for _, c := range []*Commitment{noCommitment, new(Commitment)} {
		require.Error(t, c.VerifyPart(partOf(t, dealt(t, defaultParams), 1)))
		_, _, err := c.Complete(1, nil)
		require.Error(t, err)
		_, err = c.Certify(Certification{})
		require.Error(t, err)
		require.Error(t, c.Verify())
		require.Error(t, c.VerifyRedeal(g.sharing, 1))
		_, err = c.PublicKey()
		require.Error(t, err)
	}
	c := dealt(t, defaultParams).Commitment()
	require.Error(t, c.VerifyPart(nil))
	require.Error(t, c.VerifyPart(new(Part)))
	require.Error(t, c.VerifyRedeal(nil, 1))
	require.Error(t, c.VerifyRedeal(new(Sharing), 1))
	_, err := Redeal(rand.Reader, defaultParams, nil, nil)
	require.Error(t, err)
	_, err = Redeal(rand.Reader, defaultParams, nil, new(Share))
	require.Error(t, err)
	_, err = Resharing(nil)
	require.Error(t, err)
	_, err = new(Dealing).Part(1)
	require.Error(t, err)
	require.Error(t, new(PublicKey).Verify(nil, Signature{}))
	require.Error(t, VerifyBatch(rand.Reader, make([]BatchItem, 2)))
}
