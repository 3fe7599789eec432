package threshold

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"

	"github.com/hdevalence/ed25519consensus"
	"go.dedis.ch/kyber/v3/pairing/bn256"
	"go.dedis.ch/kyber/v3/share"
	"go.dedis.ch/kyber/v3/sign/tbls"

	"github.com/reseal-bft/reseal/threshold"
)

// measureKyber measures kyber's own threshold signatures, on the curve that it brings.
func measureKyber(m *meter, p threshold.Params, row *Row) error {
	suite := bn256.NewSuite()
	poly := share.NewPriPoly(suite.G2(), p.T, nil, suite.RandomStream())
	public := poly.Commit(nil)
	var sigs [][]byte
	for _, s := range poly.Shares(p.N)[p.N-p.T:] {
		sig, err := tbls.Sign(suite, s, message)
		if err != nil {
			return err
		}
		sigs = append(sigs, sig)
	}
	m.time(&row.KyberRecover, func() error {
		_, err := tbls.Recover(suite, public, message, sigs, p.T, p.N)
		return err
	})
	return nil
}

var errPeer = errors.New("a signature of a list does not verify")

// measureLists measures what certificates are elsewhere: one ordinary signature per signer, and a
// bitmap that says whose they are.
func measureLists(m *meter, p threshold.Params, row *Row) error {
	bitmap := (p.N + 7) / 8
	if err := measureEd25519(m, p, row, bitmap); err != nil {
		return err
	}
	return measureECDSA(m, p, row, bitmap)
}

func measureEd25519(m *meter, p threshold.Params, row *Row, bitmap int) error {
	keys, sigs := make([]ed25519.PublicKey, p.T), make([][]byte, p.T)
	var private ed25519.PrivateKey
	for i := range keys {
		var err error
		if keys[i], private, err = ed25519.GenerateKey(rand.Reader); err != nil {
			return err
		}
		sigs[i] = ed25519.Sign(private, message)
	}
	m.time(&row.ListSign, func() error { ed25519.Sign(private, message); return nil })
	row.ListBytes = p.T*ed25519.SignatureSize + bitmap
	m.time(&row.ListVerify, func() error {
		for i, k := range keys {
			if !ed25519.Verify(k, message, sigs[i]) {
				return errPeer
			}
		}
		return nil
	})
	m.time(&row.ListBatchVerify, func() error {
		batch := ed25519consensus.NewPreallocatedBatchVerifier(len(keys))
		for i, k := range keys {
			batch.Add(k, message, sigs[i])
		}
		if !batch.Verify() {
			return errPeer
		}
		return nil
	})
	return nil
}

func measureECDSA(m *meter, p threshold.Params, row *Row, bitmap int) error {
	digest := sha256.Sum256(message)
	keys, sigs := make([]*ecdsa.PublicKey, p.T), make([][]byte, p.T)
	for i := range keys {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		keys[i] = &private.PublicKey
		if sigs[i], err = ecdsa.SignASN1(rand.Reader, private, digest[:]); err != nil {
			return err
		}
	}
	row.ECDSAListBytes = p.T*64 + bitmap
	m.time(&row.ECDSAListVerify, func() error {
		for i, k := range keys {
			if !ecdsa.VerifyASN1(k, digest[:], sigs[i]) {
				return errPeer
			}
		}
		return nil
	})
	return nil
}
