package threshold

import (
	"encoding/binary"
	"errors"
	"sync"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// Share is one receiver's secret share of a group key. It prints as "[secret]" everywhere.
// Safe for concurrent use, Wipe included.
type Share struct {
	redacted
	index  int
	mu     sync.RWMutex // guards secret against Wipe
	secret curve.Fr     // zero once wiped
}

// shareLen is the size of an encoded share: index (2 bytes, big-endian), scalar.
const shareLen = 2 + curve.ScalarLen

// Index returns the share's index, 1 to N.
func (s *Share) Index() int {
	if s == nil {
		return 0
	}
	return s.index
}

// Sign makes the partial signature on msg: deterministic, in time independent of the secret. The
// partial signature of a wiped share verifies nowhere.
func (s *Share) Sign(msg []byte) PartialSignature {
	if s == nil {
		return PartialSignature{}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.secret.IsZero() {
		return PartialSignature{Index: s.index}
	}
	return PartialSignature{Index: s.index, Signature: curve.Sign(&s.secret, msg, ciphersuite)}
}

// SecretBytes encodes the share, 34 bytes, for sealing; the caller wipes them. Nil once wiped.
func (s *Share) SecretBytes() []byte {
	if s == nil {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.secret.IsZero() {
		return nil
	}
	b := binary.BigEndian.AppendUint16(make([]byte, 0, shareLen), uint16(s.index))
	return s.secret.AppendBytes(b)
}

// ParseShare decodes SecretBytes. Whether the share belongs to a sharing is for CheckShare to say.
func ParseShare(b []byte) (*Share, error) {
	if len(b) != shareLen {
		return nil, errors.New("threshold: a share has 34 bytes")
	}
	s := &Share{index: int(binary.BigEndian.Uint16(b))}
	if s.index < 1 || s.index > MaxReceivers {
		return nil, errors.New("threshold: the index of the share is out of range")
	}
	if s.secret.SetBytes(b[2:]) != nil || s.secret.IsZero() {
		return nil, errors.New("threshold: the scalar of the share is out of range")
	}
	return s, nil
}

// Equal compares two shares, the secrets in constant time.
func (s *Share) Equal(other *Share) bool {
	if s == other || s == nil || other == nil {
		return s == other
	}
	a, b := s.copySecret(), other.copySecret()
	defer a.Wipe()
	defer b.Wipe()
	return s.index == other.index && a.Equal(&b)
}

// copySecret returns the secret, zero if wiped; the caller overwrites it.
func (s *Share) copySecret() curve.Fr {
	if s == nil {
		return curve.Fr{}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.secret
}

// Wipe overwrites the secret. The share is of no use afterwards.
func (s *Share) Wipe() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secret.Wipe()
}
