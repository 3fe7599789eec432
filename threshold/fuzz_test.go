package threshold

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// The fuzzers feed every decoder: nothing may panic, and what is accepted encodes to the same bytes.
// Seeds are the published vectors, good and bad.

// seed adds the seeds of one kind, and fails if there are none.
func seed(f *testing.F, kind string, more ...string) {
	var v vectors
	readJSON(f, vectorsFile, &v)
	n := 0
	add := func(s string) {
		f.Add(unhex(f, s))
		n++
	}
	for _, b := range v.Bad {
		if b.Kind == kind {
			add(b.Hex)
		}
	}
	for _, s := range more {
		add(s)
	}
	for _, tr := range []vectorTransition{v.KeyGeneration, v.Resharing} {
		switch kind {
		case "sharing":
			add(tr.Sharing)
		case "share":
			add(tr.Shares[0])
		case "commitment":
			add(tr.Dealings[0].Commitment)
		case "part":
			add(tr.Dealings[0].Parts[0])
		case "public key":
			add(tr.GroupKey)
		case "signature":
			add(v.Signing[0].Signature)
		}
	}
	for _, c := range v.Completion {
		if kind == "point" {
			add(c.Points[0])
		}
	}
	if kind == "link" {
		add(v.Link.Link)
	}
	require.NotZero(f, n, "no seeds for %s", kind)
}

func FuzzParsePublicKey(f *testing.F) {
	var decoding struct{ G2 []struct{ Hex string } }
	readJSON(f, "ethereum_decoding.json", &decoding)
	var more []string
	for _, v := range decoding.G2 {
		more = append(more, v.Hex)
	}
	seed(f, "public key", more...)
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := ParsePublicKey(b); err == nil {
			require.Equal(t, b, k.Bytes())
		}
	})
}

func FuzzVerifySignature(f *testing.F) {
	var v vectors
	readJSON(f, vectorsFile, &v)
	key, err := ParsePublicKey(unhex(f, v.KeyGeneration.GroupKey))
	require.NoError(f, err)
	msg, want := unhex(f, v.Signing[0].Message), unhex(f, v.Signing[0].Signature)
	seed(f, "signature")
	f.Fuzz(func(t *testing.T, b []byte) {
		var sig Signature
		copy(sig[:], b)
		require.Equal(t, bytes.Equal(sig[:], want), key.Verify(msg, sig) == nil)
	})
}

func FuzzParseSharing(f *testing.F) {
	seed(f, "sharing")
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSharing(b)
		if err != nil {
			return
		}
		again, err := s.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, b, again)
		s.ShareKey(s.Params().N)
	})
}

func FuzzParseShare(f *testing.F) {
	seed(f, "share")
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := ParseShare(b); err == nil {
			require.Equal(t, b, s.SecretBytes())
		}
	})
}

func FuzzParseCommitment(f *testing.F) {
	seed(f, "commitment")
	var v vectors
	readJSON(f, vectorsFile, &v)
	part, err := ParsePart(unhex(f, v.Resharing.Dealings[0].Parts[0]))
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCommitment(b)
		if err != nil {
			return
		}
		require.Equal(t, b, c.encode())
		_ = c.Verify()
		_ = c.VerifyPart(part)
	})
}

func FuzzParsePart(f *testing.F) {
	seed(f, "part")
	var v vectors
	readJSON(f, vectorsFile, &v)
	c, err := ParseCommitment(unhex(f, v.Resharing.Dealings[0].Commitment))
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePart(b)
		if err != nil {
			return
		}
		require.Equal(t, b, p.SecretBytes())
		_ = c.VerifyPart(p)
		_, _ = p.Point(1)
	})
}

func FuzzParsePoint(f *testing.F) {
	seed(f, "point")
	var v vectors
	readJSON(f, vectorsFile, &v)
	c, err := ParseCommitment(unhex(f, v.Resharing.Dealings[0].Commitment))
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePoint(b)
		if err != nil {
			return
		}
		require.Equal(t, b, p.SecretBytes())
		_, _, _ = c.Complete(p.To, []Point{p, p})
	})
}

func FuzzParseLink(f *testing.F) {
	seed(f, "link")
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := ParseLink(b); err == nil {
			again, err := l.MarshalBinary()
			require.NoError(t, err)
			require.Equal(t, b, again)
		}
	})
}

// FuzzCombine gives Combine arbitrary partial signatures: bytes of 49, an index and a signature.
func FuzzCombine(f *testing.F) {
	var v vectors
	readJSON(f, vectorsFile, &v)
	sharing, err := ParseSharing(unhex(f, v.KeyGeneration.Sharing))
	require.NoError(f, err)
	msg := unhex(f, v.Signing[1].Message)
	var all []byte
	for i, p := range v.Signing[1].Partials {
		all = append(append(all, byte(i+1)), unhex(f, p)...)
		f.Add(bytes.Clone(all))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var ps []PartialSignature
		for len(b) > SignatureLen && len(ps) < 8 {
			ps = append(ps, PartialSignature{int(int8(b[0])), Signature(b[1 : 1+SignatureLen])})
			b = b[1+SignatureLen:]
		}
		sig, _, err := sharing.Combine(msg, ps)
		require.Equal(t, err == nil, sharing.GroupKey().Verify(msg, sig) == nil)
	})
}
