package threshold

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

var wideParams = Params{N: 7, T: 5, F: 2}

var lastEpoch atomic.Int64

// dealt is a dealing in a context of its own.
func dealt(t testing.TB, p Params) *Dealing {
	t.Helper()
	d, err := Deal(rand.Reader, p, fmt.Appendf(nil, "cluster, epoch %d, dealer 3", lastEpoch.Add(1)))
	require.NoError(t, err)
	return d
}

func partOf(t testing.TB, d *Dealing, j int) *Part {
	t.Helper()
	p, err := d.Part(j)
	require.NoError(t, err)
	return p
}

// TestBadPartsAreCaught goes through what a dealer can put into a part.
func TestBadPartsAreCaught(t *testing.T) {
	d := dealt(t, wideParams)
	c := d.Commitment()
	one := curve.Powers(1, 1)[0]
	bad := map[string]func(p *Part){
		"row":                    func(p *Part) { p.row[2].Add(&p.row[2], &one) },
		"share":                  func(p *Part) { p.row[0].Add(&p.row[0], &one) },
		"column":                 func(p *Part) { p.column[4].Add(&p.column[4], &one) },
		"row of another":         func(p *Part) { p.row = partOf(t, d, 4).row },
		"column of another":      func(p *Part) { p.column = partOf(t, d, 4).column },
		"part of another":        func(p *Part) { q := partOf(t, d, 4); p.row, p.column = q.row, q.column },
		"other dealing":          func(p *Part) { *p = *partOf(t, dealt(t, wideParams), 3) },
		"row of higher degree":   func(p *Part) { p.row = append(p.row, one) },
		"row of lower degree":    func(p *Part) { p.row = p.row[:2] },
		"column of other degree": func(p *Part) { p.column = append(p.column, curve.Fr{}) },
		"errors that cancel": func(p *Part) {
			p.row[0].Add(&p.row[0], &one)
			p.column[0].Sub(&p.column[0], &one)
		},
	}
	for name, spoil := range bad {
		p := partOf(t, d, 3)
		require.NoError(t, c.VerifyPart(p))
		spoil(p)
		require.ErrorIs(t, c.VerifyPart(p), ErrInconsistent, name)
	}
	for _, index := range []int{0, -1, 8} {
		p := partOf(t, d, 3)
		p.index = index
		require.Error(t, c.VerifyPart(p))
	}
}

// TestDifferentPolynomialsInTheTwoGroups spoils each commitment in G2.
func TestDifferentPolynomialsInTheTwoGroups(t *testing.T) {
	d := dealt(t, wideParams)
	g2 := curve.Generator2()
	for l := range wideParams.T {
		c := d.Commitment()
		shares := append([]curve.G2(nil), c.shares...)
		shares[l] = curve.Add2(&shares[l], &g2)
		spoiled := newCommitment(c.params, c.context, c.matrix, shares)
		require.NoError(t, c.Verify())
		require.ErrorIs(t, spoiled.Verify(), ErrInconsistent)
		require.NoError(t, spoiled.VerifyPart(partOf(t, d, 2)), "parts are checked in G1")
		_, err := certify(map[int]*Commitment{1: spoiled})
		require.ErrorIs(t, err, ErrInconsistent)
	}
}

// TestPointsOutsideTheSubgroupChangeNothing shows that a commitment is to the parts of its points in
// the subgroup: a dealer who adds others gets another digest and no other effect.
func TestPointsOutsideTheSubgroupChangeNothing(t *testing.T) {
	for _, p := range []Params{{1, 1, 0}, wideParams, {13, 9, 4}} { // sums of 1, 15 and 45 points: blst has a way for each
		checkPointsOutside(t, dealt(t, p))
	}
}

func checkPointsOutside(t *testing.T, d *Dealing) {
	c := d.Commitment()
	for name, torsion := range map[string]curve.G1{"order 11": smallOrder(t), "large order": outside(t)} {
		matrix := append([]curve.G1(nil), c.matrix...)
		for i := range matrix {
			if i%2 == 0 {
				matrix[i] = curve.Add1(&matrix[i], &torsion)
			}
		}
		spoiled := newCommitment(c.params, c.context, matrix, c.shares)
		encoded, err := spoiled.MarshalBinary()
		require.NoError(t, err)
		parsed, err := ParseCommitment(encoded)
		require.NoError(t, err, name)
		require.NoError(t, parsed.Verify(), name)
		for j := 1; j <= c.params.N; j++ {
			require.NoError(t, parsed.VerifyPart(partOf(t, d, j)), name)
		}
		wrong := partOf(t, d, 1)
		wrong.row[0].Add(&wrong.row[0], &wrong.row[0])
		require.Error(t, parsed.VerifyPart(wrong), name)
		require.NotEqual(t, c.Digest(), parsed.Digest())
	}
}

// outside returns a point of the curve without a part in the subgroup: r times a random one.
func outside(t testing.TB) curve.G1 {
	var x [48]byte
	for try := byte(1); try != 0; try++ {
		x[0], x[47] = 0x80, try
		var p curve.G1
		if curve.DecodeG1(&p, x[:]) != nil || p.InG1() {
			continue
		}
		order := unhexReversed(t, "73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001")
		q := curve.MSM1([]curve.G1{p}, order, 255)
		require.False(t, curve.IsZero1(&q))
		cleared := curve.ClearCofactor(&q)
		require.True(t, curve.IsZero1(&cleared))
		return q
	}
	t.Fatal("no such point")
	return curve.G1{}
}

// smallOrder returns a point of order 11: the exponent of the torsion, 0xd201000000010001, divided by
// 11, times any point outside the subgroup. (The points of order 3, (0, 2) and (0, -2), are refused by
// blst's decoder.)
func smallOrder(t testing.TB) curve.G1 {
	q := outside(t)
	p := curve.MSM1([]curve.G1{q}, binary.LittleEndian.AppendUint64(nil, 0xd201000000010001/11), 64)
	require.False(t, curve.IsZero1(&p))
	multiple := curve.MSM1([]curve.G1{p}, []byte{11}, 4)
	require.True(t, curve.IsZero1(&multiple))
	return p
}

// unhexReversed decodes a number to little-endian bytes.
func unhexReversed(t testing.TB, s string) []byte {
	b := unhex(t, s)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return b
}

// TestRedealingSomethingElseIsCaught covers a wrong secret, another's share, and a dealing replayed
// from another epoch, whose share is none of this one.
func TestRedealingSomethingElseIsCaught(t *testing.T) {
	g := generate(t, wideParams, 3)
	next := reshare(t, g, wideParams, upTo(1, 5))
	honest := map[int]*Commitment{}
	for d := 1; d <= 5; d++ {
		dealing, err := Redeal(rand.Reader, wideParams, []byte{byte(d)}, next.shares[d-1])
		require.NoError(t, err)
		honest[d] = dealing.Commitment()
		require.NoError(t, honest[d].VerifyRedeal(next.sharing, d))
	}
	_, err := Resharing(next.sharing, certified(t, honest)...)
	require.NoError(t, err)
	sixth, err := Redeal(rand.Reader, wideParams, []byte{6}, next.shares[5])
	require.NoError(t, err)
	_, err = Resharing(next.sharing, append(certified(t, honest), certified(t, map[int]*Commitment{6: sixth.Commitment()})...)...)
	require.ErrorContains(t, err, "exactly 5", "one too many")

	replayed, err := Redeal(rand.Reader, wideParams, nil, g.shares[2])
	require.NoError(t, err)
	for name, c := range map[string]*Commitment{
		"wrong secret":       dealt(t, wideParams).Commitment(),
		"another's share":    honest[4],
		"from another epoch": replayed.Commitment(),
	} {
		require.ErrorIs(t, c.VerifyRedeal(next.sharing, 3), ErrInconsistent, name)
		spoiled := map[int]*Commitment{1: honest[1], 2: honest[2], 3: c, 4: honest[4], 5: honest[5]}
		_, err := Resharing(next.sharing, certified(t, spoiled)...)
		require.ErrorIs(t, err, ErrInconsistent, name)
	}
}

// TestTransitionsRefuse goes through the ways to choose dealings wrongly.
func TestTransitionsRefuse(t *testing.T) {
	g := generate(t, wideParams, 3)
	c, c2, c3 := dealt(t, wideParams).Commitment(), dealt(t, wideParams).Commitment(), dealt(t, wideParams).Commitment()
	other := dealt(t, defaultParams).Commitment()
	_, err := KeyGeneration()
	require.Error(t, err)
	_, err = KeyGeneration(certified(t, map[int]*Commitment{1: c, 2: c2})...)
	require.ErrorContains(t, err, "at least 3")
	_, err = KeyGeneration(certified(t, map[int]*Commitment{1: c, 2: other, 3: c3})...)
	require.ErrorIs(t, err, ErrInconsistent)
	_, err = KeyGeneration(append(certified(t, map[int]*Commitment{1: c, 3: c3}), nil)...)
	require.ErrorIs(t, err, errMissing)
	_, err = KeyGeneration(append(certified(t, map[int]*Commitment{1: c, 3: c3}), new(CertifiedDealing))...)
	require.ErrorIs(t, err, errMissing)
	_, err = KeyGeneration(append(certified(t, map[int]*Commitment{1: c, 3: c3}), certified(t, map[int]*Commitment{1: c})...)...)
	require.ErrorContains(t, err, "two dealings of dealer 1")
	_, err = Resharing(g.sharing, certified(t, map[int]*Commitment{1: c})...)
	require.ErrorContains(t, err, "exactly 5")
	_, err = Resharing(g.sharing, certified(t, map[int]*Commitment{1: c, 2: c2, 3: c3, 4: dealt(t, wideParams).Commitment(), 99: dealt(t, wideParams).Commitment()})...)
	require.ErrorContains(t, err, "dealer")

	d1, d2 := dealt(t, Params{N: 3, T: 2, F: 1}), dealt(t, Params{N: 3, T: 2, F: 1})
	tr, err := KeyGeneration(certified(t, map[int]*Commitment{1: d1.Commitment(), 2: d2.Commitment()})...)
	require.NoError(t, err)
	require.Equal(t, []int{1, 2}, tr.Dealers())
	_, err = tr.Share(map[int]*Part{1: partOf(t, d1, 1)})
	require.ErrorContains(t, err, "missing")
	_, err = tr.Share(map[int]*Part{1: partOf(t, d1, 1), 2: partOf(t, d2, 2)})
	require.ErrorContains(t, err, "do not make one share")
	_, err = tr.Share(map[int]*Part{1: partOf(t, d1, 1), 2: partOf(t, d1, 1)})
	require.ErrorIs(t, err, ErrInconsistent)
}
