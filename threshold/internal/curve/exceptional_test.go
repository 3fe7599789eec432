package curve

import (
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"
)

var order, _ = new(big.Int).SetString("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001", 16)

// exceptionalScalars are those for which a formula that is not complete would fail. A window method
// adds d*2^w to what it has summed up so far, s, and fails where s = ±d*2^w modulo the order: so k
// is one of 0, 2d*2^w, with d the digits that occur. All of them are here for windows of any place
// and digits of up to 6 bits, with their neighbours and negatives.
func exceptionalScalars() []Fr {
	seen := map[string]bool{}
	var out []Fr
	for w := range uint(256) {
		for d := int64(0); d <= 64; d++ {
			if w > 4 && w < 246 && (w%40 != 0 || d > 16) { // in the middle no sum reaches the order: a sample
				continue
			}
			for off := int64(-1); off <= 1; off++ {
				k := new(big.Int).Lsh(big.NewInt(d), w)
				k.Add(k, big.NewInt(off)).Mod(k, order)
				for _, x := range []*big.Int{k, new(big.Int).Mod(new(big.Int).Neg(k), order)} {
					b := x.FillBytes(make([]byte, ScalarLen))
					if seen[string(b)] {
						continue
					}
					seen[string(b)] = true
					var fr Fr
					if err := fr.SetBytes(b); err != nil {
						panic(err)
					}
					out = append(out, fr)
				}
			}
		}
	}
	return out
}

// TestEveryPathMultipliesByExceptionalScalars: the table of the generator, the general
// multiplication and the multi-scalar one agree, in both groups, alone and in a batch with the
// scalar zero. (The judges' module asks another library for the same products.)
func TestEveryPathMultipliesByExceptionalScalars(t *testing.T) {
	scalars := exceptionalScalars()
	one := make([]Fr, 1)
	one[0].SetSmall(1)
	g1, g2 := Commit1(one)[0], Commit2(one)[0]
	batch := append(append([]Fr{}, scalars...), Fr{})
	all1, all2 := Commit1(batch), Commit2(batch)
	require.True(t, IsZero1(&all1[len(scalars)]) && IsZero2(&all2[len(scalars)]), "zero times the generator")
	for i := range scalars {
		k := &scalars[i]
		want1, want2 := Mult1(&g1, k), Mult2(&g2, k)
		require.Equal(t, k.IsZero(), IsZero1(&want1))
		require.Equal(t, want1, all1[i], "scalar %x in G1", k.AppendBytes(nil))
		require.Equal(t, want1, Mult1(nil, k), "scalar %x in G1, alone", k.AppendBytes(nil))
		require.Equal(t, want1, Sum1([]G1{g1}, scalars[i:i+1]), "scalar %x in a sum of one in G1", k.AppendBytes(nil))
		require.Equal(t, want2, all2[i], "scalar %x in G2", k.AppendBytes(nil))
		require.Equal(t, want2, Mult2(nil, k), "scalar %x in G2, alone", k.AppendBytes(nil))
		require.Equal(t, want2, Sum2([]G2{g2}, scalars[i:i+1]), "scalar %x in a sum of one in G2", k.AppendBytes(nil))
	}
}

// TestSumsOfChosenPoints: who chooses the points of a sum may repeat them, negate them, and leave
// infinity among them.
func TestSumsOfChosenPoints(t *testing.T) {
	small := func(x uint64) (f Fr) { f.SetSmall(x); return f }
	base := []Fr{small(1), small(2), small(3)}
	minus := make([]Fr, len(base))
	for i := range base {
		minus[i].Neg(&base[i])
	}
	scalars := append(append(append([]Fr{}, base...), minus...), Fr{})
	p1, p2 := Commit1(scalars), Commit2(scalars)
	for _, n := range []int{1, 2, 3, 7, 8, 31, 32, 33, 70, 200} {
		for pattern := range 5 {
			points1, points2 := make([]G1, n), make([]G2, n)
			coefficients := make([]Fr, n)
			var want Fr
			for i := range n {
				at := []int{0, i % 2 * 3, i % len(scalars), 6, i / 2 % len(scalars)}[pattern]
				points1[i], points2[i] = p1[at], p2[at]
				coefficients[i] = small(uint64([]int{1, 1, i%5 + 1, i, 1<<20 - i}[pattern]))
				if i%7 == 3 {
					coefficients[i].Neg(&coefficients[i])
				}
				var term Fr
				term.Mul(&scalars[at], &coefficients[i])
				want.Add(&want, &term)
			}
			require.Equal(t, Mult1(nil, &want), Sum1(points1, coefficients), "n=%d pattern %d in G1", n, pattern)
			require.Equal(t, Mult2(nil, &want), Sum2(points2, coefficients), "n=%d pattern %d in G2", n, pattern)
		}
	}
}
