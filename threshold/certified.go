package threshold

import (
	"bytes"
	"errors"
	"fmt"
)

// Certification is what a quorum of receivers certified of a dealing, and what it must be about.
type Certification struct {
	// Dealer is the index of the dealer, from 1, and Context what it must have bound in: which
	// cluster, epoch, attempt.
	Dealer  int
	Context []byte
	// Statement makes what the receivers signed once they held row and column and had verified them
	// (VerifyPart), of the commitment's digest and the public key of the dealt secret. It is asked,
	// not given, so that no message that was signed as something else and only has the digest in it
	// somewhere can pass. Nil stands for AcknowledgementMessage.
	Statement func(commitment [32]byte, key *PublicKey) []byte
	// Certificate is the quorum's signature on the statement, and Verify says whether it is: of T
	// holders of the sharing that is in force, or, in key generation, a list of T signatures by
	// receivers.
	Certificate []byte
	Verify      func(message, certificate []byte) error
}

// CertifiedDealing is a dealing of which it is certain that every correct receiver can complete its
// part, whatever the dealer does from now on, and that the dealer chose it before it could know
// which others would be chosen: there is no other way to one than [Commitment.Certify]. Immutable
// and safe for concurrent use.
type CertifiedDealing struct {
	dealer     int
	commitment *Commitment
}

// Dealer returns the dealer's index.
func (d *CertifiedDealing) Dealer() int {
	if d == nil {
		return 0
	}
	return d.dealer
}

// Commitment returns the dealing's commitment.
func (d *CertifiedDealing) Commitment() *Commitment {
	if d == nil {
		return nil
	}
	return d.commitment
}

// errMissing says that an argument is nil, or the zero value of its type.
var errMissing = errors.New("threshold: a value is missing: nil, or the zero value of its type, where a parsed or made one is needed")

// Certify checks that a quorum certified the dealing for what it is to be used for, and Verify.
// Only what it returns can be combined into a key: dealings that nobody certified let one dealer
// choose its own after it has seen the others', and hold the key alone.
func (c *Commitment) Certify(by Certification) (*CertifiedDealing, error) {
	if !c.made() {
		return nil, errMissing
	}
	if !bytes.Equal(c.context, by.Context) {
		return nil, fmt.Errorf("%w: the dealing of %d was made for another context", ErrInconsistent, by.Dealer)
	}
	key, err := c.PublicKey()
	if err != nil {
		return nil, err
	}
	if by.Statement == nil {
		by.Statement = func([32]byte, *PublicKey) []byte { return c.AcknowledgementMessage() }
	}
	if err := by.check(c.digest, key); err != nil {
		return nil, err
	}
	if err := c.Verify(); err != nil {
		return nil, fmt.Errorf("threshold: dealing of %d: %w", by.Dealer, err)
	}
	return &CertifiedDealing{dealer: by.Dealer, commitment: c}, nil
}

// check verifies the certificate of a commitment, named by its digest, and of the public key of
// what was dealt.
func (by *Certification) check(commitment [32]byte, key *PublicKey) error {
	if by.Verify == nil || by.Statement == nil {
		return errMissing
	}
	if by.Dealer < 1 || by.Dealer > MaxReceivers {
		return fmt.Errorf("threshold: dealer %d is outside 1..%d", by.Dealer, MaxReceivers)
	}
	message := by.Statement(commitment, key)
	if !bytes.Contains(message, commitment[:]) {
		return fmt.Errorf("%w: the statement about the dealing of %d does not name its commitment", ErrInconsistent, by.Dealer)
	}
	if err := by.Verify(message, by.Certificate); err != nil {
		return fmt.Errorf("threshold: certificate of the dealing of %d: %w", by.Dealer, err)
	}
	return nil
}
