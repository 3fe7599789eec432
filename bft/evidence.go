package bft

import (
	"bytes"
	"errors"
)

// newEvidence puts two different headers of one view in order.
func newEvidence(a, b SignedHeader) Evidence {
	da, db := a.Digest(), b.Digest()
	if bytes.Compare(da[:], db[:]) > 0 {
		a, b = b, a
	}
	return Evidence{a, b}
}

// Validate reports why the evidence proves nothing. The signatures of the headers' proposer remain
// to be checked.
func (e *Evidence) Validate() error {
	if e.A.Epoch != e.B.Epoch || e.A.View != e.B.View || e.A.Proposer != e.B.Proposer {
		return errors.New("evidence: the headers are not of one view and proposer")
	}
	da, db := e.A.Digest(), e.B.Digest()
	if bytes.Compare(da[:], db[:]) >= 0 {
		return errors.New("evidence: the headers are equal or not in order")
	}
	return nil
}
