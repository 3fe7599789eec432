package curve

import (
	"crypto/rand"
	"testing"

	"github.com/stretchr/testify/require"
	blst "github.com/supranational/blst/bindings/go"
)

func random(t testing.TB, n int) []Fr {
	out := make([]Fr, n)
	for i := range out {
		require.NoError(t, out[i].SetRandom(rand.Reader))
	}
	return out
}

func inner(a, b []Fr) (y Fr) {
	y.Inner(a, b)
	return y
}

func TestInterpolationUndoesEvaluation(t *testing.T) {
	for _, n := range []int{1, 2, 5, 13} {
		coef := random(t, n)
		xs := make([]uint16, n)
		ys := make([]Fr, n)
		for i := range xs {
			xs[i] = uint16(3*i + 2)
			ys[i].Eval(coef, n, 1, uint64(xs[i]))
		}
		require.Equal(t, coef, Interpolate(xs, ys))
		for _, at := range []uint64{0, 1, 100} {
			var want, got Fr
			want.Eval(coef, n, 1, at)
			got.Inner(ys, Lagrange(xs, at))
			require.Equal(t, want, got)
		}
	}
}

func TestMultiplesAgree(t *testing.T) {
	for _, n := range []int{1, 2, 31, 32, 40} {
		ks, ws := random(t, n), random(t, n)
		ks[0] = Fr{} // the point at infinity among the points
		sum := inner(ks, ws)
		scalars := ScalarBytes(Scalars(ws))
		require.Equal(t, Mult1(nil, &sum), MSM1(Commit1(ks), scalars, 255))
		require.Equal(t, Mult2(nil, &sum), MSM2(Commit2(ks), scalars, 255))
	}
}

// TestCommitmentsWipeTheirWorkingMemory: Jacobian coordinates tell more of a scalar than the point does.
func TestCommitmentsWipeTheirWorkingMemory(t *testing.T) {
	ks := random(t, 5)
	scratch1, scratch2 := make([]blst.P1, len(ks)), make([]blst.P2, len(ks))
	for i := range ks {
		scratch1[i], scratch2[i] = *blst.P1Generator(), *blst.P2Generator()
	}
	commit1(ks, scratch1)
	commit2(ks, scratch2)
	require.Equal(t, make([]blst.P1, len(ks)), scratch1)
	require.Equal(t, make([]blst.P2, len(ks)), scratch2)
}

// TestCommitments compares multiplication from the table with blst's, edge cases included.
func TestCommitments(t *testing.T) {
	ks := random(t, 64)
	ks[0] = Fr{}
	for i := 1; i < 20; i++ {
		ks[i].SetSmall(uint64(i))
		if i%2 == 0 {
			ks[i].Neg(&ks[i])
		}
	}
	for w := range 12 {
		limbs := [4]uint64{}
		limbs[w/4] = 8 << (w % 4 * 16)
		ks[20+w].setLimbs(&limbs)
	}
	for i, p := range Commit1(ks) {
		base := Generator1()
		require.Equal(t, Mult1(&base, &ks[i]), p, "%x", ks[i].Bytes())
	}
}

func TestPairings(t *testing.T) {
	k := random(t, 1)[0]
	h := HashToG1([]byte("m"), []byte("dst"))
	sig := Mult1(&h, &k)
	key := Mult2(nil, &k)
	require.True(t, CheckPairing(&sig, &h, PrepareLines(&key)))
	require.False(t, CheckPairing(&h, &h, PrepareLines(&key)))
	base := Mult1(nil, &k)
	require.True(t, SameLogCleared(&base, &key))
	require.False(t, SameLogCleared(&h, &key))
	var zero1 G1
	var zero2 G2
	require.True(t, SameLogCleared(&zero1, &zero2))
	require.False(t, SameLogCleared(&base, &zero2))
	require.False(t, SameLogCleared(&zero1, &key))
}

func TestInterpolationInTheExponent(t *testing.T) {
	var c Interpolation
	for _, n := range []int{1, 2, 3, 5, 11, 43, 64, 65, 171, 3} {
		for _, step := range []int{1, 2, 3} {
			coef := random(t, n)
			xs := make([]uint16, n)
			ys := make([]Fr, n)
			for i := range xs {
				xs[i] = uint16(step*(n-i) + step - 1)
				ys[i].Eval(coef, n, 1, uint64(xs[i]))
			}
			c.Prepare(xs)
			require.Equal(t, Mult1(nil, &coef[0]), c.At0(Commit1(ys)), "n=%d step=%d", n, step)
			if n < 64 {
				require.Equal(t, Mult2(nil, &coef[0]), c.At0G2(Commit2(ys)), "n=%d step=%d", n, step)
			}
		}
	}
}

// TestSumsOfShortScalars goes through lengths of the largest scalar, zero included.
func TestSumsOfShortScalars(t *testing.T) {
	for _, n := range []int{1, 3, 40} {
		ks, ws := random(t, n), make([]Fr, n)
		points1, points2 := Commit1(ks), Commit2(ks)
		for shift := range 64 {
			sum := inner(ks, ws)
			require.Equal(t, Mult1(nil, &sum), Sum1(points1, ws), "n=%d, %d bits", n, shift)
			if shift < 10 {
				require.Equal(t, Mult2(nil, &sum), Sum2(points2, ws), "n=%d, %d bits", n, shift)
			}
			for i := range ws {
				ws[i].SetSmall(uint64(1)<<shift - uint64(i)&(1<<shift-1)>>1)
			}
		}
	}
}
