package request

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/reseal-bft/reseal/bft"
)

var cluster = bft.ClusterID{1, 2, 3}

// testKey returns the key number i.
func testKey(i byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{i}, ed25519.SeedSize))
}

func mustNew(t testing.TB, key byte, sequence uint64, operations ...string) *Request {
	t.Helper()
	ops := make([][]byte, len(operations))
	for i, op := range operations {
		ops[i] = []byte(op)
	}
	r, err := New(cluster, testKey(key), sequence, Application, ops)
	require.NoError(t, err)
	return r
}

func TestRequestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ops := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 20), 1, 10).Draw(t, "operations")
		sequence := rapid.Uint64Min(1).Draw(t, "sequence")
		space := rapid.SampledFrom([]Space{Application, System}).Draw(t, "space")
		r, err := New(cluster, testKey(7), sequence, space, ops)
		require.NoError(t, err)
		require.NoError(t, r.Verify(cluster))
		require.Equal(t, sequence, r.Sequence)
		require.Equal(t, space, r.Space)
		require.Equal(t, testKey(7).Public(), r.Client)
		require.Equal(t, len(ops), len(r.Operations))
		for i := range ops {
			require.True(t, bytes.Equal(ops[i], r.Operations[i]))
		}
	})
}

func TestRequestLimits(t *testing.T) {
	one := [][]byte{[]byte("op")}
	for name, c := range map[string]struct {
		sequence uint64
		space    Space
		ops      [][]byte
	}{
		"no sequence":              {0, Application, one},
		"unknown space":            {1, spaces, one},
		"no operations":            {1, Application, nil},
		"too many operations":      {1, Application, make([][]byte, bft.MaxOperations+1)},
		"an operation too large":   {1, Application, [][]byte{make([]byte, bft.MaxOperation+1)}},
		"the request is too large": {1, Application, [][]byte{make([]byte, bft.MaxOperation), make([]byte, bft.MaxOperation)}},
	} {
		_, err := New(cluster, testKey(1), c.sequence, c.space, c.ops)
		require.Error(t, err, name)
	}
	_, err := New(cluster, testKey(1), 1, Application, make([][]byte, bft.MaxOperations))
	require.NoError(t, err)

	full := [][]byte{make([]byte, bft.MaxOperation), make([]byte, bft.MaxRequest-bft.MaxOperation-minSize-6)}
	r, err := New(cluster, testKey(1), 1, Application, full)
	require.NoError(t, err)
	require.Len(t, r.Raw(), bft.MaxRequest)
	full[1] = append(full[1], 0)
	_, err = New(cluster, testKey(1), 1, Application, full)
	require.ErrorIs(t, err, ErrMalformed)
}

// What comes from a peer was not made by New: Parse has the same limits.
func TestParseHasTheLimitsOfNew(t *testing.T) {
	raw := func(sequence uint64, space byte, count uint16, operations ...int) []byte {
		b := binary.BigEndian.AppendUint64(make([]byte, ed25519.PublicKeySize), sequence)
		b = binary.BigEndian.AppendUint16(append(b, space), count)
		for _, size := range operations {
			b = appendPart(b, make([]byte, size))
		}
		return append(b, make([]byte, ed25519.SignatureSize)...)
	}
	for name, c := range map[string]struct {
		raw  []byte
		good bool
	}{
		"the largest operation":      {raw(1, 0, 1, bft.MaxOperation), true},
		"an operation too large":     {raw(1, 0, 1, bft.MaxOperation+1), false},
		"the largest request":        {raw(1, 1, 2, bft.MaxOperation, bft.MaxRequest-bft.MaxOperation-minSize-6), true},
		"a request too large":        {raw(1, 1, 2, bft.MaxOperation, bft.MaxRequest-bft.MaxOperation-minSize-5), false},
		"no sequence":                {raw(0, 0, 1, 1), false},
		"no operations":              {raw(1, 0, 0), false},
		"unknown space":              {raw(1, byte(spaces), 1, 1), false},
		"more operations than said":  {raw(1, 0, 1, 1, 1), false},
		"fewer operations than said": {raw(1, 0, 2, 1), false},
		"too short":                  {raw(1, 0, 1)[:minSize-1], false},
	} {
		_, err := Parse(c.raw)
		if c.good {
			require.NoError(t, err, name)
		} else {
			require.ErrorIs(t, err, ErrMalformed, name)
		}
	}
}

func TestSignatureBindsEverything(t *testing.T) {
	r := mustNew(t, 1, 9, "one", "two")
	require.ErrorIs(t, r.Verify(bft.ClusterID{9}), ErrSignature)
	for i := range r.Raw() {
		raw := bytes.Clone(r.Raw())
		raw[i] ^= 1
		changed, err := Parse(raw)
		if err == nil {
			require.ErrorIs(t, changed.Verify(cluster), ErrSignature, "byte %d", i)
		}
	}
}

// A digest names a request with its signature: who knows the digest of a verified request need not
// verify it again.
func TestDigestBindsSignature(t *testing.T) {
	r := mustNew(t, 1, 9, "one")
	for i := range r.Raw() {
		raw := bytes.Clone(r.Raw())
		raw[i] ^= 1
		if changed, err := Parse(raw); err == nil {
			require.NotEqual(t, r.Digest(), changed.Digest(), "byte %d", i)
		}
	}
}

func TestVerifyAllFindsExactlyTheBad(t *testing.T) {
	var requests []*Request
	want := make([]bool, 37)
	for i := range want {
		r := mustNew(t, byte(i%5+1), uint64(i+1), "op")
		want[i] = i%9 != 4 && i != 36
		if !want[i] {
			raw := bytes.Clone(r.Raw())
			raw[len(raw)-1-i] ^= 4
			var err error
			r, err = Parse(raw)
			require.NoError(t, err)
		}
		requests = append(requests, r)
	}
	require.Equal(t, want, VerifyAll(cluster, requests))
	require.Empty(t, VerifyAll(cluster, nil))
}

func TestPayloadRoundTrip(t *testing.T) {
	requests := []*Request{mustNew(t, 1, 1, "a"), mustNew(t, 2, 5, "b", ""), mustNew(t, 1, 2, "c")}
	payload := AppendPayload(nil, requests)
	got, err := ParsePayload(payload)
	require.NoError(t, err)
	require.Len(t, got, len(requests))
	for i := range got {
		require.Equal(t, requests[i].Raw(), got[i].Raw())
		require.Equal(t, requests[i].Digest(), got[i].Digest())
	}
	size := 0
	for _, r := range requests {
		size += PayloadSize(r)
	}
	require.Equal(t, len(payload), size)

	require.Empty(t, AppendPayload(nil, nil))
	got, err = ParsePayload(nil)
	require.NoError(t, err)
	require.Empty(t, got)

	for cut := range payload {
		got, err := ParsePayload(payload[:cut])
		require.True(t, err != nil || len(got) < len(requests))
	}
}

func TestAPayloadHasABound(t *testing.T) {
	largest := mustNew(t, 1, 1, string(make([]byte, bft.MaxOperation)))
	payload := AppendPayload(nil, slices.Repeat([]*Request{largest}, bft.MaxPayload/PayloadSize(largest)))
	last := mustNew(t, 1, 1, string(make([]byte, bft.MaxPayload-len(payload)-3-minSize-3)))
	payload = AppendPayload(payload, []*Request{last})
	require.Len(t, payload, bft.MaxPayload)
	_, err := ParsePayload(payload)
	require.NoError(t, err)
	_, err = ParsePayload(AppendPayload(payload, []*Request{mustNew(t, 1, 1, "one more")}))
	require.ErrorIs(t, err, ErrMalformed)
}

func FuzzParse(f *testing.F) {
	f.Add(mustNew(f, 1, 1, "a").Raw())
	f.Add(mustNew(f, 2, 1<<60, "", "two", "three").Raw())
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := Parse(raw)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		// Signing the same parts again gives the same bytes, but for the signature.
		again, err := New(cluster, testKey(1), r.Sequence, r.Space, r.Operations)
		require.NoError(t, err)
		require.Equal(t, raw[32:len(raw)-64], again.Raw()[32:len(raw)-64])
		_ = r.Verify(cluster)
	})
}

func FuzzPayload(f *testing.F) {
	f.Add(AppendPayload(nil, []*Request{mustNew(f, 1, 1, "a"), mustNew(f, 2, 2, "b")}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, payload []byte) {
		requests, err := ParsePayload(payload)
		if err == nil {
			require.True(t, bytes.Equal(payload, AppendPayload(nil, requests)))
		}
	})
}

func BenchmarkVerifyAll(b *testing.B) {
	const count = 64
	requests := make([]*Request, count)
	ops := make([]string, 100)
	for i := range ops {
		ops[i] = string(bytes.Repeat([]byte{byte(rand.Int())}, 128))
	}
	for i := range requests {
		requests[i] = mustNew(b, byte(i), 1, ops...)
	}
	payload := AppendPayload(nil, requests)
	b.Run("batch", func(b *testing.B) {
		for b.Loop() {
			VerifyAll(cluster, requests)
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/count, "us/request")
	})
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			_ = requests[0].Verify(cluster)
		}
	})
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := ParsePayload(payload)
			require.NoError(b, err)
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/count, "us/request")
	})
}
