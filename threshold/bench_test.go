package threshold

import (
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// benchParams are the numbers of a cluster of n = 3f+1.
func benchParams(n int) Params {
	f := (n - 1) / 3
	return Params{N: n, T: n - f, F: f}
}

func BenchmarkSignatures(b *testing.B) {
	for _, n := range []int{4, 16, 64, 128, 256} {
		p := benchParams(n)
		g := deal1(b, p)
		msg := []byte("a block")
		ps := g.sign(msg, upTo(n-p.T+1, n)...)
		sig, _, err := g.sharing.Combine(msg, ps)
		require.NoError(b, err)
		b.Run(fmt.Sprintf("combine/n=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _, _ = g.sharing.Combine(msg, ps)
			}
		})
		b.Run(fmt.Sprintf("verify/n=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = g.sharing.GroupKey().Verify(msg, sig)
			}
		})
		b.Run(fmt.Sprintf("verify-partial/n=%d", n), func(b *testing.B) {
			for b.Loop() {
				_ = g.sharing.VerifyPartial(msg, ps[0])
			}
		})
		b.Run(fmt.Sprintf("sign/n=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				g.shares[0].Sign(msg)
			}
		})
	}
}

func BenchmarkVerifyBatch(b *testing.B) {
	g := deal1(b, benchParams(4))
	var items []BatchItem
	for i := range 64 {
		msg := []byte{byte(i)}
		sig, _, err := g.sharing.Combine(msg, g.sign(msg, 1, 2, 3))
		require.NoError(b, err)
		items = append(items, BatchItem{Key: g.sharing.GroupKey(), Message: msg, Signature: sig})
	}
	for _, k := range []int{1, 4, 16, 64} {
		b.Run(fmt.Sprintf("k=%d", k), func(b *testing.B) {
			for b.Loop() {
				_ = VerifyBatch(rand.Reader, items[:k])
			}
		})
	}
}

// BenchmarkCombineWithABadPartial is the slow path: one of the first T does not verify.
func BenchmarkCombineWithABadPartial(b *testing.B) {
	for _, n := range []int{4, 64} {
		p := benchParams(n)
		g := deal1(b, p)
		msg := []byte("a block")
		ps := g.sign(msg, upTo(1, n)...)
		ps[1] = g.shares[1].Sign([]byte("another"))
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			for b.Loop() {
				_, _, _ = g.sharing.Combine(msg, ps)
			}
		})
	}
}

func BenchmarkDealings(b *testing.B) {
	for _, n := range []int{4, 16, 64} {
		p := benchParams(n)
		d, err := Deal(rand.Reader, p, nil)
		require.NoError(b, err)
		part, err := d.Part(n)
		require.NoError(b, err)
		encoded, err := d.Commitment().MarshalBinary()
		require.NoError(b, err)
		b.Run(fmt.Sprintf("deal/n=%d", n), func(b *testing.B) {
			for b.Loop() {
				_, _ = Deal(rand.Reader, p, nil)
			}
		})
		b.Run(fmt.Sprintf("parts/n=%d", n), func(b *testing.B) {
			for b.Loop() {
				for j := 1; j <= n; j++ {
					_, _ = d.Part(j)
				}
			}
		})
		b.Run(fmt.Sprintf("parse/n=%d", n), func(b *testing.B) {
			for b.Loop() {
				_, _ = ParseCommitment(encoded)
			}
		})
		b.Run(fmt.Sprintf("verify/n=%d", n), func(b *testing.B) {
			for b.Loop() {
				_ = d.Commitment().checkConsistency()
			}
		})
		b.Run(fmt.Sprintf("verify-part/n=%d", n), func(b *testing.B) {
			for b.Loop() {
				_ = d.Commitment().VerifyPart(part)
			}
		})
	}
}
