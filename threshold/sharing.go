package threshold

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// sharingScheme names the scheme at the head of an encoded Sharing.
const sharingScheme = "reseal/sharing/bls12381-g1/v1"

// Sharing is the public side of a shared key: the polynomial that the shares lie on, committed to in
// G2. Immutable and safe for concurrent use.
type Sharing struct {
	params       Params
	polynomial   []curve.G2 // T coefficients, lowest first; the first is the group key
	group        *PublicKey
	keys         []atomic.Pointer[PublicKey] // of the shares, filled on demand
	combinations sync.Pool                   // of *combination: working memory
}

func newSharing(p Params, polynomial []curve.G2) (*Sharing, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	group, err := newPublicKey(polynomial[0])
	if err != nil {
		return nil, err
	}
	s := &Sharing{params: p, polynomial: polynomial, group: group, keys: make([]atomic.Pointer[PublicKey], p.N)}
	s.combinations.New = func() any { return newCombination(p.T) }
	return s, nil
}

// made reports whether the sharing was combined or decoded.
func (s *Sharing) made() bool { return s != nil && s.group != nil }

// Params returns the numbers of the sharing.
func (s *Sharing) Params() Params {
	if s == nil {
		return Params{}
	}
	return s.params
}

// GroupKey returns the key under which combined signatures verify.
func (s *Sharing) GroupKey() *PublicKey {
	if s == nil {
		return nil
	}
	return s.group
}

// ShareKey returns the key under which the partial signatures of share i verify, nil if i is not in
// 1..N (or, for a sharing made by dealers who know the secret, if the share is zero).
func (s *Sharing) ShareKey(i int) *PublicKey {
	if !s.made() || s.params.checkIndex(i) != nil {
		return nil
	}
	slot := &s.keys[i-1]
	if k := slot.Load(); k != nil {
		return k
	}
	k, err := newPublicKey(curve.EvalG2(s.polynomial, uint64(i)))
	if err != nil {
		return nil
	}
	slot.CompareAndSwap(nil, k)
	return slot.Load()
}

// VerifyPartial checks a partial signature on msg under its share's key.
func (s *Sharing) VerifyPartial(msg []byte, p PartialSignature) error {
	k := s.ShareKey(p.Index)
	if k == nil {
		return fmt.Errorf("%w: there is no share %d", ErrInvalidSignature, p.Index)
	}
	return k.Verify(msg, p.Signature)
}

// CheckShare reports whether a share belongs to this sharing.
func (s *Sharing) CheckShare(share *Share) error {
	secret := share.copySecret()
	defer secret.Wipe()
	switch {
	case !s.made():
		return errMissing
	case secret.IsZero():
		return ErrWiped
	}
	k := s.ShareKey(share.index)
	if k == nil || curve.Mult2(nil, &secret) != k.point {
		return fmt.Errorf("%w: share %d is none of this sharing", ErrInconsistent, share.index)
	}
	return nil
}

// Equal reports whether two sharings are the same.
func (s *Sharing) Equal(other *Sharing) bool {
	if s == nil || other == nil || s.params != other.params {
		return s == other
	}
	for i := range s.polynomial {
		if s.polynomial[i] != other.polynomial[i] {
			return false
		}
	}
	return true
}

// MarshalBinary encodes the sharing: scheme, N, T, F (2 bytes each), then T compressed points.
func (s *Sharing) MarshalBinary() ([]byte, error) {
	if !s.made() {
		return nil, errMissing
	}
	b := appendHeader(make([]byte, 0, headerLen(sharingScheme)+len(s.polynomial)*curve.G2Len), sharingScheme, s.params)
	for i := range s.polynomial {
		b = append(b, s.polynomial[i].Compress()...)
	}
	return b, nil
}

// ParseSharing decodes MarshalBinary. What it accepts encodes to the same bytes again.
func ParseSharing(b []byte) (*Sharing, error) {
	p, rest, err := parseHeader(b, sharingScheme)
	if err != nil {
		return nil, err
	}
	if len(rest) != p.T*curve.G2Len {
		return nil, fmt.Errorf("threshold: sharing: %d bytes of points, want %d", len(rest), p.T*curve.G2Len)
	}
	polynomial := make([]curve.G2, p.T)
	for i := range polynomial {
		if err := curve.DecodeG2(&polynomial[i], rest[i*curve.G2Len:(i+1)*curve.G2Len]); err != nil {
			return nil, fmt.Errorf("threshold: sharing: coefficient %d: %w", i, err)
		}
	}
	return newSharing(p, polynomial)
}

// headerLen is the size of an encoded scheme name and Params.
func headerLen(scheme string) int { return 1 + len(scheme) + 6 }

func appendHeader(b []byte, scheme string, p Params) []byte {
	b = append(b, byte(len(scheme)))
	b = append(b, scheme...)
	for _, v := range []int{p.N, p.T, p.F} {
		b = binary.BigEndian.AppendUint16(b, uint16(v))
	}
	return b
}

func parseHeader(b []byte, scheme string) (Params, []byte, error) {
	n := headerLen(scheme)
	if len(b) < n || int(b[0]) != len(scheme) || string(b[1:n-6]) != scheme {
		return Params{}, nil, errors.New("threshold: these bytes do not begin with the scheme name " + scheme)
	}
	p := Params{
		N: int(binary.BigEndian.Uint16(b[n-6:])),
		T: int(binary.BigEndian.Uint16(b[n-4:])),
		F: int(binary.BigEndian.Uint16(b[n-2:])),
	}
	return p, b[n:], p.Validate()
}
