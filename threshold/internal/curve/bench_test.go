package curve

import (
	"fmt"
	"testing"

	blst "github.com/supranational/blst/bindings/go"
)

func BenchmarkPairing(b *testing.B) {
	k := random(b, 1)[0]
	h := HashToG1([]byte("m"), []byte("dst"))
	sig := Mult1(&h, &k)
	key := Mult2(nil, &k)
	lines := PrepareLines(&key)
	neg := Sub2(new(G2), &key)
	g2 := Generator2()
	b.Run("lines", func(b *testing.B) {
		for b.Loop() {
			CheckPairing(&sig, &h, lines)
		}
	})
	b.Run("two-loops-shared-squarings", func(b *testing.B) {
		for b.Loop() {
			ProductIsOne([]G1{sig, h}, []G2{g2, neg})
		}
	})
	b.Run("prepare", func(b *testing.B) {
		for b.Loop() {
			PrepareLines(&key)
		}
	})
	b.Run("finalexp", func(b *testing.B) {
		f := blst.Fp12MillerLoop(&key, &h)
		for b.Loop() {
			g := *f
			g.FinalExp()
		}
	})
	b.Run("hash", func(b *testing.B) {
		for b.Loop() {
			HashToG1([]byte("m"), []byte("dst"))
		}
	})
	b.Run("ing1", func(b *testing.B) {
		for b.Loop() {
			sig.InG1()
		}
	})
	enc := sig.Compress()
	b.Run("uncompress", func(b *testing.B) {
		for b.Loop() {
			sig.Uncompress(enc)
		}
	})
	b.Run("blst-verify", func(b *testing.B) {
		dst := []byte("dst")
		for b.Loop() {
			sig.Verify(true, &key, false, []byte("m"), dst)
		}
	})
}

func BenchmarkMSM(b *testing.B) {
	for _, n := range []int{3, 11, 43, 171, 946} {
		points := Commit1(random(b, n))
		scalars := Scalars(random(b, n))
		for _, bits := range []int{64, 128, 255} {
			b.Run(fmt.Sprintf("n=%d/bits=%d", n, bits), func(b *testing.B) {
				s := make([]byte, 0)
				for i := range scalars {
					s = append(s, scalars[i][:(bits+7)/8]...)
				}
				for b.Loop() {
					MSM1(points, s, bits)
				}
			})
		}
	}
}

func BenchmarkCombine(b *testing.B) {
	for _, n := range []int{3, 4, 11, 43, 64, 171} {
		xs := make([]uint16, n)
		for i := range xs {
			xs[i] = uint16(i + 1 + i/2)
		}
		points := Commit1(random(b, n))
		var c Interpolation
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.Prepare(xs)
				c.At0(points)
			}
		})
		b.Run(fmt.Sprintf("coefficients/n=%d", n), func(b *testing.B) {
			for b.Loop() {
				c.integerCoefficients(xs)
			}
		})
		b.Run(fmt.Sprintf("field/n=%d", n), func(b *testing.B) {
			for b.Loop() {
				MSM1(points, ScalarBytes(Scalars(Lagrange(xs, 0))), 255)
			}
		})
	}
}

func BenchmarkCommit(b *testing.B) {
	ks, base := random(b, 100), Generator1()
	b.Run("table", func(b *testing.B) {
		for b.Loop() {
			Commit1(ks)
		}
	})
	b.Run("blst", func(b *testing.B) {
		for b.Loop() {
			for i := range ks {
				Mult1(&base, &ks[i])
			}
		}
	})
}
