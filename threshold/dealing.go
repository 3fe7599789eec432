package threshold

import (
	"errors"
	"fmt"
	"io"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// Dealing is what a dealer holds: a random polynomial phi(x, y), of degree T-1 in x and F in y, whose
// value phi(0, 0) is what is dealt. Secret; not safe for concurrent use with Wipe.
type Dealing struct {
	redacted
	commitment   *Commitment
	coefficients []curve.Fr // that of x^l y^k at l*(F+1)+k; nil once wiped
}

// Deal deals a fresh random secret, for key generation. The context (at most MaxContext bytes: which
// cluster, epoch and dealer) is bound into the commitment's digest.
func Deal(rand io.Reader, p Params, context []byte) (*Dealing, error) {
	return deal(rand, p, context, nil)
}

// Redeal deals the caller's share to the receivers of p: refresh if they are the same, resharing if
// they are others.
func Redeal(rand io.Reader, p Params, context []byte, share *Share) (*Dealing, error) {
	if share == nil {
		return nil, errMissing
	}
	secret := share.copySecret()
	defer secret.Wipe()
	if secret.IsZero() {
		return nil, ErrWiped
	}
	return deal(rand, p, context, &secret)
}

func deal(rand io.Reader, p Params, context []byte, secret *curve.Fr) (*Dealing, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if rand == nil {
		return nil, errMissing
	}
	if len(context) > MaxContext {
		return nil, fmt.Errorf("threshold: a context of %d bytes: at most %d", len(context), MaxContext)
	}
	coefficients := make([]curve.Fr, p.rows()*p.columns())
	for i := range coefficients {
		if err := coefficients[i].SetRandom(rand); err != nil {
			curve.Wipe(coefficients)
			return nil, fmt.Errorf("threshold: reading randomness for a dealing: %w", err)
		}
	}
	if secret != nil {
		coefficients[0] = *secret
	}
	return &Dealing{commitment: commit(p, context, coefficients), coefficients: coefficients}, nil
}

// commit commits to every coefficient in G1, and to phi(x, 0) in G2 too.
func commit(p Params, context []byte, coefficients []curve.Fr) *Commitment {
	shares := make([]curve.Fr, p.rows())
	defer curve.Wipe(shares)
	for l := range shares {
		shares[l] = coefficients[l*p.columns()]
	}
	return newCommitment(p, append([]byte(nil), context...), curve.Commit1(coefficients), curve.Commit2(shares))
}

// Commitment returns the public side of the dealing.
func (d *Dealing) Commitment() *Commitment {
	if d == nil {
		return nil
	}
	return d.commitment
}

// Part returns what receiver j is to get, over a confidential channel: its row phi(j, y) and its
// column phi(x, j).
func (d *Dealing) Part(j int) (*Part, error) {
	if !d.Commitment().made() {
		return nil, errMissing
	}
	p := d.commitment.params
	if err := p.checkIndex(j); err != nil {
		return nil, err
	}
	if d.coefficients == nil {
		return nil, ErrWiped
	}
	part := &Part{index: j, row: make([]curve.Fr, p.columns()), column: make([]curve.Fr, p.rows())}
	for k := range part.row {
		part.row[k].Eval(d.coefficients[k:], p.rows(), p.columns(), uint64(j))
	}
	for l := range part.column {
		part.column[l].Eval(d.coefficients[l*p.columns():], p.columns(), 1, uint64(j))
	}
	return part, nil
}

// Wipe overwrites the polynomial. Parts already made are the receivers' to wipe.
func (d *Dealing) Wipe() {
	if d == nil {
		return
	}
	curve.Wipe(d.coefficients)
	d.coefficients = nil
}

// Part is one receiver's secret part of a dealing: a row, which gives its share, and a column, from
// which others complete the parts that they missed. A part that was completed from points has a row
// only.
type Part struct {
	redacted
	index  int
	row    []curve.Fr // phi(index, y), F+1 coefficients; nil once wiped
	column []curve.Fr // phi(x, index), T coefficients, or none
}

// Index returns the receiver's index.
func (p *Part) Index() int {
	if p == nil {
		return 0
	}
	return p.index
}

// HasColumn reports whether Point works.
func (p *Part) HasColumn() bool { return p != nil && p.column != nil }

// ErrNoColumn says that a part has no column: it is no part of a dealer's, and makes no points.
var ErrNoColumn = errors.New("threshold: this part was completed from points and makes none: ask a receiver that got its part from the dealer")

// Point returns what helps receiver to complete the part that it missed: phi(to, index). For that
// receiver only: F+1 such points are its whole row.
func (p *Part) Point(to int) (Point, error) {
	if p == nil || p.row == nil {
		return Point{}, ErrWiped
	}
	if p.column == nil {
		return Point{}, ErrNoColumn
	}
	if to < 1 || to > MaxReceivers {
		return Point{}, fmt.Errorf("threshold: index %d is outside 1..%d", to, MaxReceivers)
	}
	value := new(curve.Fr)
	value.Eval(p.column, len(p.column), 1, uint64(to))
	return Point{From: p.index, To: to, value: value}, nil
}

// Wipe overwrites the part.
func (p *Part) Wipe() {
	if p == nil {
		return
	}
	curve.Wipe(p.row)
	curve.Wipe(p.column)
	p.row, p.column = nil, nil
}

// Equal compares two parts, the secrets in constant time.
func (p *Part) Equal(other *Part) bool {
	if p == nil || other == nil {
		return p == other
	}
	if p.index != other.index || len(p.row) != len(other.row) || len(p.column) != len(other.column) {
		return false
	}
	equal := true
	for i := range p.row {
		equal = p.row[i].Equal(&other.row[i]) && equal
	}
	for i := range p.column {
		equal = p.column[i].Equal(&other.column[i]) && equal
	}
	return equal
}

// Point is phi(To, From): one receiver's help for another. Secret between the two. Copies share the
// secret; the zero Point has none and helps nobody.
type Point struct {
	redacted
	From, To int
	value    *curve.Fr // a pointer, so that not even reflection on a struct that holds a Point prints it
}

// Wipe overwrites the value, that of copies too.
func (p *Point) Wipe() {
	if p != nil && p.value != nil {
		p.value.Wipe()
	}
}
