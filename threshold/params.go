package threshold

import (
	"errors"
	"fmt"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// MaxReceivers is the largest number of receivers of a sharing.
const MaxReceivers = 512

// MaxContext is the largest length in bytes of a dealing's context.
const MaxContext = 1024

// Params are the numbers of a sharing. Receivers have the indices 1 to N.
type Params struct {
	N int // receivers, at most MaxReceivers
	T int // partial signatures that make a signature; the secret polynomial has degree T-1
	F int // receivers that may be corrupted: any F+1 complete another receiver's part
}

// Validate reports numbers that cannot work: 0 <= F < T <= N <= MaxReceivers is required.
func (p Params) Validate() error {
	switch {
	case p.N < 1 || p.N > MaxReceivers:
		return fmt.Errorf("threshold: N=%d receivers: choose between 1 and %d", p.N, MaxReceivers)
	case p.T < 1 || p.T > p.N:
		return fmt.Errorf("threshold: T=%d of N=%d: choose between 1 and N", p.T, p.N)
	case p.F < 0 || p.F >= p.T:
		return fmt.Errorf("threshold: F=%d with T=%d: choose between 0 and T-1, or F receivers could sign alone", p.F, p.T)
	}
	return nil
}

// rows is the number of coefficients in x, columns that in y.
func (p Params) rows() int    { return p.T }
func (p Params) columns() int { return p.F + 1 }

// MaxCommitmentLen is the largest size in bytes of an encoded commitment for these numbers, whatever its
// context: a limit for whoever receives them.
func (p Params) MaxCommitmentLen() int {
	return headerLen(commitmentScheme) + 2 + MaxContext + pointsLen(p)
}

// MaxPartLen is the largest size in bytes of an encoded part.
func (p Params) MaxPartLen() int {
	return partHeaderLen + (p.rows()+p.columns())*curve.ScalarLen
}

func (p Params) checkIndex(i int) error {
	if i < 1 || i > p.N {
		return fmt.Errorf("threshold: index %d is outside 1..%d", i, p.N)
	}
	return nil
}

var (
	// ErrInvalidSignature says that a signature or partial signature does not verify.
	ErrInvalidSignature = errors.New("threshold: the signature does not verify under this key")
	// ErrTooFewPartials says that fewer than T distinct valid partial signatures were given.
	ErrTooFewPartials = errors.New("threshold: too few valid partial signatures")
	// ErrWiped says that a secret was used after Wipe.
	ErrWiped = errors.New("threshold: the secret has been wiped")
	// ErrInconsistent says that a dealing, a part, a point or a share contradicts its commitment.
	ErrInconsistent = errors.New("threshold: inconsistent with the commitment")
)
