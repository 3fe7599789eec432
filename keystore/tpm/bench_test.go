package tpm_test

import (
	"crypto"
	"crypto/sha256"
	"testing"

	"github.com/reseal-bft/reseal/keystore"
)

// BenchmarkOperations measures what a replica does with its TPM, and which part
// of the time is the TPM's own.
func BenchmarkOperations(b *testing.B) {
	dev := newTPM(b, ours)
	s, _ := newStore(b, dev.URI())
	if err := s.Seal(0, make([]byte, 66)); err != nil {
		b.Fatal(err)
	}
	digest := sha256.Sum256(nil)
	for _, op := range []struct {
		name string
		run  func() error
	}{
		{"unseal", func() error { _, err := s.Unseal(0); return err }},
		{"seal", func() error { return s.Seal(0, make([]byte, 66)) }},
		{"sign", func() error { _, err := s.Identity().Sign(nil, digest[:], crypto.SHA256); return err }},
		{"quote", func() error { _, err := s.Quote(nonce); return err }},
	} {
		if op.name == "sign" { // from here on nothing opens in this boot
			if err := s.Claim(); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(op.name, func(b *testing.B) {
			before := s.DeviceTime()
			for b.Loop() {
				if err := op.run(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(100*float64(s.DeviceTime()-before)/float64(b.Elapsed()), "%device")
		})
	}
}

// BenchmarkVerifyQuote measures what each replica does in the log.
func BenchmarkVerifyQuote(b *testing.B) {
	dev := newTPM(b, ours)
	s, _ := claimedStore(b, dev.URI())
	q, err := s.Quote(nonce)
	if err != nil {
		b.Fatal(err)
	}
	ak := s.AttestationKey()
	for b.Loop() {
		if _, err := keystore.VerifyQuote(ak, nonce, q); err != nil {
			b.Fatal(err)
		}
	}
}
