package bls12381_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.dedis.ch/kyber/v3"
	"go.dedis.ch/kyber/v3/share"
	//lint:ignore SA1019 deprecated for its aggregation of different keys, which is not used here
	"go.dedis.ch/kyber/v3/sign/bls"
	"go.dedis.ch/kyber/v3/sign/tbls"
	"go.dedis.ch/kyber/v3/util/random"
	"go.dedis.ch/kyber/v3/util/test"

	"github.com/reseal-bft/reseal/threshold"
	"github.com/reseal-bft/reseal/threshold/bls12381"
)

var suite = bls12381.NewSuite(nil)

func groups() []kyber.Group { return []kyber.Group{suite.G1(), suite.G2(), suite.GT()} }

// TestKybersOwnTests runs the tests that kyber has for any group.
func TestKybersOwnTests(t *testing.T) {
	for _, g := range groups() {
		t.Run(g.String(), func(t *testing.T) { test.GroupTest(t, g) })
	}
}

func TestGroupLaws(t *testing.T) {
	for _, g := range groups() {
		t.Run(g.String(), func(t *testing.T) {
			a, b := g.Scalar().Pick(suite.RandomStream()), g.Scalar().Pick(suite.RandomStream())
			p, q := g.Point().Mul(a, nil), g.Point().Mul(b, nil)
			require.True(t, g.Point().Add(p, q).Equal(g.Point().Mul(g.Scalar().Add(a, b), nil)))
			require.True(t, g.Point().Sub(p, q).Equal(g.Point().Mul(g.Scalar().Sub(a, b), nil)))
			require.True(t, g.Point().Neg(p).Equal(g.Point().Mul(g.Scalar().Neg(a), nil)))
			require.True(t, g.Point().Mul(b, p).Equal(g.Point().Mul(g.Scalar().Mul(a, b), nil)))
			require.True(t, g.Point().Mul(g.Scalar().Div(a, b), q).Equal(p))
			require.True(t, g.Point().Add(p, g.Point().Null()).Equal(p))
			require.True(t, g.Point().Sub(p, p).Equal(g.Point().Null()))
			require.True(t, g.Point().Mul(g.Scalar().Zero(), p).Equal(g.Point().Null()))
			require.True(t, g.Point().Mul(g.Scalar().SetInt64(-1), p).Equal(g.Point().Neg(p)))
			require.True(t, g.Point().Mul(g.Scalar().One(), nil).Equal(g.Point().Base()))
			require.False(t, g.Point().Pick(suite.RandomStream()).Equal(g.Point().Pick(suite.RandomStream())))
		})
	}
}

func TestEncodings(t *testing.T) {
	for _, g := range groups() {
		p := g.Point().Pick(suite.RandomStream())
		s := g.Scalar().Pick(suite.RandomStream())
		var buf bytes.Buffer
		require.NoError(t, suite.Write(&buf, p, s, g.Point().Null()))
		require.Equal(t, 2*g.PointLen()+g.ScalarLen(), buf.Len())
		p2, s2, null := g.Point(), g.Scalar(), g.Point().Base()
		require.NoError(t, suite.Read(&buf, p2, s2, null))
		require.True(t, p.Equal(p2))
		require.True(t, s.Equal(s2))
		require.True(t, null.Equal(g.Point().Null()))
		require.Error(t, g.Point().UnmarshalBinary(bytes.Repeat([]byte{0xff}, g.PointLen())))
		require.Error(t, g.Point().UnmarshalBinary(nil))
		require.Error(t, g.Scalar().UnmarshalBinary(bytes.Repeat([]byte{0xff}, 32)))
	}
	require.Error(t, suite.Write(new(bytes.Buffer), 3))
}

func TestPairingIsBilinear(t *testing.T) {
	a, b := suite.G1().Scalar().Pick(suite.RandomStream()), suite.G1().Scalar().Pick(suite.RandomStream())
	left := suite.Pair(suite.G1().Point().Mul(a, nil), suite.G2().Point().Mul(b, nil))
	require.True(t, left.Equal(suite.GT().Point().Mul(suite.GT().Scalar().Mul(a, b), nil)))
	require.True(t, suite.Pair(suite.G1().Point().Null(), suite.G2().Point().Base()).Equal(suite.GT().Point().Null()))
}

func TestScalarsDoNotPrint(t *testing.T) {
	secret := suite.G1().Scalar().SetInt64(0x1234567)
	private := &share.PriShare{I: 1, V: secret}
	require.Equal(t, "{1:[scalar]}", private.String())
	require.Equal(t, "[scalar] [scalar] [scalar]", fmt.Sprintf("%v %x %#v", secret, secret, secret))
}

func TestKyberBLSIsOurs(t *testing.T) {
	private, public := bls.NewKeyPair(suite, random.New())
	msg := []byte("message")
	sig, err := bls.Sign(suite, private, msg)
	require.NoError(t, err)
	require.NoError(t, bls.Verify(suite, public, msg, sig))
	encoded, err := public.MarshalBinary()
	require.NoError(t, err)
	key, err := threshold.ParsePublicKey(encoded)
	require.NoError(t, err)
	require.NoError(t, key.Verify(msg, threshold.Signature(sig)))
}

// TestKyberTBLSCombinesTheSame runs kyber's threshold signatures on our suite over shares that
// package threshold reads, and compares every byte.
func TestKyberTBLSCombinesTheSame(t *testing.T) {
	const n, q = 7, 5
	msg := []byte("a block")
	poly := share.NewPriPoly(suite.G2(), q, nil, suite.RandomStream())
	public := poly.Commit(nil)
	sharing := sharingOf(t, threshold.Params{N: n, T: q, F: 2}, public)

	var theirs [][]byte
	var ours []threshold.PartialSignature
	for _, private := range poly.Shares(n) {
		sig, err := tbls.Sign(suite, private, msg)
		require.NoError(t, err)
		theirs = append(theirs, sig)
		v, err := private.V.MarshalBinary()
		require.NoError(t, err)
		s, err := threshold.ParseShare(append([]byte{0, byte(private.I + 1)}, v...)) // kyber counts from 0
		require.NoError(t, err)
		require.NoError(t, sharing.CheckShare(s))
		ours = append(ours, s.Sign(msg))
		require.Equal(t, sig[2:], ours[private.I].Signature[:], "partial signatures are the same")
	}
	want, err := tbls.Recover(suite, public, msg, theirs[1:], q, n)
	require.NoError(t, err)
	got, bad, err := sharing.Combine(msg, ours[2:])
	require.NoError(t, err)
	require.Empty(t, bad)
	require.Equal(t, want, got[:])
	require.NoError(t, bls.Verify(suite, public.Commit(), msg, got[:]))
}

// sharingOf encodes kyber's public polynomial as a Sharing.
func sharingOf(t require.TestingT, p threshold.Params, public *share.PubPoly) *threshold.Sharing {
	const scheme = "reseal/sharing/bls12381-g1/v1"
	b := append([]byte{byte(len(scheme))}, scheme...)
	b = append(b, 0, byte(p.N), 0, byte(p.T), 0, byte(p.F))
	_, coefficients := public.Info()
	for _, c := range coefficients {
		point, err := c.MarshalBinary()
		require.NoError(t, err)
		b = append(b, point...)
	}
	sharing, err := threshold.ParseSharing(b)
	require.NoError(t, err)
	return sharing
}

func TestStreamsAndHashes(t *testing.T) {
	require.Equal(t, 32, suite.Hash().Size())
	for _, g := range groups() {
		p, q := g.Point(), g.Point()
		s := g.Scalar()
		_, err := p.UnmarshalFrom(suite.XOF([]byte("seed")))
		require.NoError(t, err)
		_, err = q.UnmarshalFrom(suite.XOF([]byte("seed")))
		require.NoError(t, err)
		require.True(t, p.Equal(q), "points picked from the same stream")
		_, err = s.UnmarshalFrom(suite.XOF([]byte("seed")))
		require.NoError(t, err)
		require.True(t, g.Scalar().SetBytes([]byte{1, 0}).Equal(g.Scalar().SetInt64(256)))
		_, err = p.UnmarshalFrom(bytes.NewReader([]byte{1, 2}))
		require.Error(t, err)
	}
}
