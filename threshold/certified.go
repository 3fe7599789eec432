package threshold

import (
	"bytes"
	"errors"
	"fmt"
)

// Certification is what a quorum of receivers certified of a dealing, and what it must be about.
type Certification struct {
	// Dealer is the index of the dealer, from 1, and Context what it must have bound in: which cluster, epoch, attempt.
	Dealer  int
	Context []byte
	// Message is what the receivers signed once they held row and column and had verified them (VerifyPart). It names the commitment by its
	// digest. Nil stands for AcknowledgementMessage.
	Message []byte
	// Certificate is the quorum's signature on Message, and Verify says whether it is: of T holders of the sharing that is in force, or, in
	// key generation, a list of T signatures by receivers.
	Certificate []byte
	Verify      func(message, certificate []byte) error
}

// CertifiedDealing is a dealing of which it is certain that every correct receiver can complete its part, whatever the dealer does from
// now on, and that the dealer chose it before it could know which others would be chosen: there is no other way to one than
// [Commitment.Certify]. Immutable and safe for concurrent use.
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

// Certify checks that a quorum certified the dealing for what it is to be used for, and Verify. Only what it returns can be combined into a key:
// dealings that nobody certified let one dealer choose its own after it has seen the others', and hold the key alone.
func (c *Commitment) Certify(by Certification) (*CertifiedDealing, error) {
	if !c.made() || by.Verify == nil {
		return nil, errMissing
	}
	if by.Dealer < 1 || by.Dealer > MaxReceivers {
		return nil, fmt.Errorf("threshold: dealer %d is outside 1..%d", by.Dealer, MaxReceivers)
	}
	if !bytes.Equal(c.context, by.Context) {
		return nil, fmt.Errorf("%w: the dealing of %d was made for another context", ErrInconsistent, by.Dealer)
	}
	message := by.Message
	if message == nil {
		message = c.AcknowledgementMessage()
	}
	if !bytes.Contains(message, c.digest[:]) {
		return nil, fmt.Errorf("%w: the certificate for the dealing of %d is about another commitment", ErrInconsistent, by.Dealer)
	}
	if err := by.Verify(message, by.Certificate); err != nil {
		return nil, fmt.Errorf("threshold: certificate of the dealing of %d: %w", by.Dealer, err)
	}
	if err := c.Verify(); err != nil {
		return nil, fmt.Errorf("threshold: dealing of %d: %w", by.Dealer, err)
	}
	return &CertifiedDealing{dealer: by.Dealer, commitment: c}, nil
}
