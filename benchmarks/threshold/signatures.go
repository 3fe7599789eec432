package threshold

import (
	"crypto/rand"
	"fmt"
	"math/big"

	blst "github.com/supranational/blst/bindings/go"

	"github.com/reseal-bft/reseal/threshold"
	"github.com/reseal-bft/reseal/threshold/thresholdtest"
)

var message = []byte("a vote: cluster, epoch, kind, view and block digest of a real one are about this long, 80 bytes.")

// group is a sharing with all its shares, made by one dealer: good enough to measure with.
type group struct {
	sharing *threshold.Sharing
	shares  []*threshold.Share
}

func newGroup(p threshold.Params) (*group, error) {
	sharing, shares, err := thresholdtest.Sharing(threshold.Params{N: p.N, T: p.T})
	return &group{sharing: sharing, shares: shares}, err
}

// partials are those of T signers spread over all receivers: neither the first nor the last ones, whose
// Lagrange coefficients would be the smallest.
func (g *group) partials(msg []byte) []threshold.PartialSignature {
	p := g.sharing.Params()
	ps := make([]threshold.PartialSignature, p.T)
	for i := range ps {
		ps[i] = g.shares[i*p.N/p.T].Sign(msg)
	}
	return ps
}

func measureSignatures(m *meter, p threshold.Params, row *Row) error {
	g, err := newGroup(p)
	if err != nil {
		return err
	}
	ps := g.partials(message)
	sig, _, err := g.sharing.Combine(message, ps)
	if err != nil {
		return err
	}
	key := g.sharing.GroupKey()
	row.CertificateBytes = len(sig)
	m.time(&row.Sign, func() error { g.shares[0].Sign(message); return nil })
	m.time(&row.PartialVerify, func() error { return g.sharing.VerifyPartial(message, ps[0]) })
	m.time(&row.Combine, func() error { _, err := g.sharing.CombineUnverified(ps); return err })
	m.time(&row.Verify, func() error { return key.Verify(message, sig) })
	m.time(&row.CombineAndVerify, func() error { _, _, err := g.sharing.Combine(message, ps); return err })
	batch, err := g.certificates(16)
	if err != nil {
		return err
	}
	m.time(&row.BatchVerify16, func() error { return threshold.VerifyBatch(rand.Reader, batch) })
	op, err := primitives(g, ps)
	m.time(&row.Primitives, op)
	return err
}

// certificates makes signatures on n messages.
func (g *group) certificates(n int) ([]threshold.BatchItem, error) {
	var items []threshold.BatchItem
	for i := range n {
		msg := fmt.Appendf(nil, "%s %d", message, i)
		sig, _, err := g.sharing.Combine(msg, g.partials(msg))
		if err != nil {
			return nil, err
		}
		items = append(items, threshold.BatchItem{Key: g.sharing.GroupKey(), Message: msg, Signature: sig})
	}
	return items, nil
}

// primitives does with blst's Go binding what combining and verifying takes at least: decoding
// T points, one multi-scalar multiplication with coefficients of full length, one verification with its
// check of the subgroup. It is the yardstick for CombineAndVerify.
func primitives(g *group, ps []threshold.PartialSignature) (func() error, error) {
	order, _ := new(big.Int).SetString("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001", 16)
	scalars := make([]byte, 0, 32*len(ps))
	for range ps {
		k, err := rand.Int(rand.Reader, order)
		if err != nil {
			return nil, err
		}
		scalars = append(scalars, new(blst.Scalar).FromBEndian(k.FillBytes(make([]byte, 32))).Serialize()...)
	}
	key := new(blst.P2Affine).Uncompress(g.sharing.GroupKey().Bytes())
	sig, _, err := g.sharing.Combine(message, ps)
	if err != nil {
		return nil, err
	}
	valid := new(blst.P1Affine).Uncompress(sig[:])
	points := make(blst.P1Affines, len(ps))
	return func() error {
		for i := range ps {
			points[i].Uncompress(ps[i].Signature[:])
		}
		points.Mult(scalars, 255)
		if !valid.Verify(true, key, false, message, []byte(threshold.Ciphersuite)) {
			return threshold.ErrInvalidSignature
		}
		return nil
	}, nil
}
