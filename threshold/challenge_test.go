package threshold

import (
	"crypto/rand"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// Many equations are checked as one, with coefficients that follow from all that is to be believed.
// Each of these liars knows the coefficients before he chooses the rest, as he would if they
// followed from less, and chooses it so that the one equation holds.

// balanced changes two values so that their sum with coefficients k stays.
func balanced(x, k []curve.Fr) {
	x[0].Add(&x[0], &k[1])
	x[1].Sub(&x[1], &k[0])
}

func TestAPartIsNotChosenAfterItsChallenge(t *testing.T) {
	p := wideParams
	d := dealt(t, p)
	c := d.Commitment()
	digest := c.Digest()
	honest := partOf(t, d, 3)
	for name, known := range map[string][][]byte{
		"of the commitment":           {digest[:]},
		"of the commitment, no part":  {digest[:], nil},
		"of another part":             {digest[:], honest.SecretBytes()},
		"of nothing":                  {},
		"of another dealing's digest": {make([]byte, 32), honest.SecretBytes()},
	} {
		row := partOf(t, d, 3)
		balanced(row.row, challengeScalars("row", p.columns(), known...))
		require.ErrorIs(t, c.VerifyPart(row), ErrInconsistent, "a row, by the coefficients %s", name)
		column := partOf(t, d, 3)
		balanced(column.column, challengeScalars("column", p.rows(), known...))
		require.ErrorIs(t, c.VerifyPart(column), ErrInconsistent, "a column, by the coefficients %s", name)
	}
}

func TestACommitmentIsNotChosenAfterItsChallenge(t *testing.T) {
	p := wideParams
	d := dealt(t, p)
	c := d.Commitment()
	digest := c.Digest()
	const receiver = 3
	var one, index curve.Fr
	one.SetSmall(1)
	index.SetSmall(receiver)
	// suited is the commitment with a point moved by dividend/divisor times the generator.
	suited := func(at int, dividend, divisor *curve.Fr) *Commitment {
		var by curve.Fr
		by.Inverse(divisor)
		by.Mul(&by, dividend)
		matrix := append([]curve.G1(nil), c.matrix...)
		move := curve.Mult1(nil, &by)
		matrix[at] = curve.Add1(&matrix[at], &move)
		return newCommitment(p, c.context, matrix, c.shares)
	}
	part := partOf(t, d, receiver)
	part.column = nil
	part.row[0].Add(&part.row[0], &one)
	for _, known := range [][][]byte{{part.SecretBytes()}, {digest[:], part.SecretBytes()}} {
		u := challengeScalars("row", p.columns(), known...)
		require.ErrorIs(t, suited(1, &u[0], &u[1]).VerifyCompleted(part), ErrInconsistent, "a row")
	}
	part = partOf(t, d, receiver)
	part.column[0].Add(&part.column[0], &one)
	for _, known := range [][][]byte{{part.SecretBytes()}, {digest[:], part.SecretBytes()}} {
		u, v := challengeScalars("row", p.columns(), known...), challengeScalars("column", p.rows(), known...)
		var weight curve.Fr // of the coefficient of x
		weight.Mul(&index, &u[0])
		weight.Add(&weight, &v[1])
		require.ErrorIs(t, suited(p.columns(), &v[0], &weight).VerifyPart(part), ErrInconsistent, "a column")
	}
}

// The two commitments of a dealing, in G1 and in G2.
func TestASecondCommitmentIsNotChosenAfterItsChallenge(t *testing.T) {
	g := generate(t, wideParams, 3)
	dealing, err := Redeal(rand.Reader, wideParams, nil, g.shares[0])
	require.NoError(t, err)
	c := dealing.Commitment()
	require.NoError(t, c.VerifyRedeal(g.sharing, 1))
	shares := append([]curve.G2(nil), c.shares...)
	g2 := curve.Generator2()
	shares[1] = curve.Add2(&shares[1], &g2)
	spoiled := newCommitment(c.params, c.context, c.matrix, shares)
	require.ErrorIs(t, spoiled.VerifyRedeal(g.sharing, 1), ErrInconsistent, "it deals the share, and other shares in G2 than in G1")

	digest := c.Digest()
	k := challengeScalars("commitment", wideParams.rows()-1, digest[:])
	one, two := curve.Mult2(nil, &k[1]), curve.Mult2(nil, &k[0])
	shares = append([]curve.G2(nil), c.shares...)
	shares[1], shares[2] = curve.Add2(&shares[1], &one), curve.Sub2(&shares[2], &two)
	require.ErrorIs(t, newCommitment(c.params, c.context, c.matrix, shares).Verify(), ErrInconsistent)
}

// Two partial signatures that are wrong by amounts that cancel are both found, though many are
// checked at once.
func TestPartialSignaturesAreNotChosenAfterTheirChallenge(t *testing.T) {
	p := Params{N: 13, T: 9, F: 4}
	g := generate(t, p, 5)
	msg := []byte("m")
	good := g.sign(msg, upTo(1, p.N)...)
	var keys, all []byte
	for _, s := range good {
		keys = append(binary.BigEndian.AppendUint16(keys, uint16(s.Index)), g.sharing.ShareKey(s.Index).Bytes()...)
		all = append(binary.BigEndian.AppendUint16(all, uint16(s.Index)), g.sharing.ShareKey(s.Index).Bytes()...)
		all = append(all, s.Signature[:]...)
	}
	wrong := curve.HashToG1([]byte("any point"), ciphersuite)
	for name, known := range map[string][][]byte{"keys": {msg, keys}, "no message": {nil, keys}, "the good ones": {msg, all}, "nothing": {}} {
		k := challenge("partial signatures", p.N, known...)
		times := func(i int) curve.G1 {
			return curve.MSM1([]curve.G1{wrong}, k[i*coefficientLen:(i+1)*coefficientLen], 8*coefficientLen)
		}
		forged := append([]PartialSignature(nil), good...)
		for i, by := range map[int]curve.G1{1: times(2), 2: curve.Sub1(&curve.G1{}, ptr(times(1)))} {
			var point curve.G1
			require.NoError(t, forged[i].Signature.decode(&point))
			point = curve.Add1(&point, &by)
			forged[i].Signature = Signature(point.Compress())
		}
		kept, bad := g.sharing.sift(msg, forged)
		require.Equal(t, []int{2, 3}, bad, name)
		require.Len(t, kept, p.N-2)
	}
	twice := append(good[:4:4], PartialSignature{Index: 4, Signature: good[1].Signature}, PartialSignature{Index: 4, Signature: good[2].Signature})
	_, bad := g.sharing.sift(msg, twice)
	require.Equal(t, []int{4}, bad, "who lies twice is named once")
}

func ptr(p curve.G1) *curve.G1 { return &p }
