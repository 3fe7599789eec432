package merkle

import (
	"crypto/sha256"
	"errors"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
)

// ErrProof says that a proof does not show what was claimed of a map with the given root.
var ErrProof = errors.New("the Merkle proof does not verify: the answer is not of the certified state; ask another replica")

// Proof shows, to one who knows only a map's root, what the map holds under one key. The zero value proves absence in the empty map.
type Proof struct {
	// Siblings are the hashes beside the path, from the root down; zero for an empty subtree. At most 256.
	Siblings []bft.Digest
	// Other is set where the path ends in the leaf of another key, which proves absence.
	Other *OtherLeaf
}

// OtherLeaf is what a proof of absence tells of the leaf in the way.
type OtherLeaf struct{ Key, ValueHash bft.Digest }

// Prove returns the proof of what the map holds under key: its value, or nothing.
func (m Map) Prove(key bft.Digest) Proof {
	var p Proof
	at := &m.root
	for depth := 0; at.inner != nil; depth++ {
		towards, sibling := at.inner.child(&key, depth)
		p.Siblings = append(p.Siblings, sibling.hash)
		at = towards
	}
	if at.leaf != nil && at.leaf.key != key {
		p.Other = &OtherLeaf{Key: at.leaf.key, ValueHash: sha256.Sum256(at.leaf.value)}
	}
	return p
}

// Root returns the root of a map in which the proof shows that key has the given value, or is absent. It fails where the proof can
// show no such thing.
func (p Proof) Root(key bft.Digest, value []byte, present bool) (bft.Digest, error) {
	if len(p.Siblings) > maxDepth {
		return bft.Digest{}, ErrProof
	}
	var h bft.Digest
	switch {
	case present && p.Other != nil:
		return bft.Digest{}, ErrProof
	case present:
		valueHash := bft.Digest(sha256.Sum256(value))
		h = hashLeaf(&key, &valueHash)
	case p.Other != nil:
		if p.Other.Key == key || !sharesBits(&p.Other.Key, &key, len(p.Siblings)) {
			return bft.Digest{}, ErrProof
		}
		h = hashLeaf(&p.Other.Key, &p.Other.ValueHash)
	}
	for depth := len(p.Siblings) - 1; depth >= 0; depth-- {
		if bit(&key, depth) == 0 {
			h = hashInner(&h, &p.Siblings[depth])
		} else {
			h = hashInner(&p.Siblings[depth], &h)
		}
	}
	return h, nil
}

// VerifyProof checks that the map with the given root holds value under key (present), or nothing (not present; value is ignored).
// It returns [ErrProof] where the proof does not show that.
func VerifyProof(root, key bft.Digest, value []byte, present bool, p Proof) error {
	got, err := p.Root(key, value, present)
	if err == nil && got != root {
		err = ErrProof
	}
	return err
}

// maxDepth is the number of bits of a key.
const maxDepth = 256

// MaxProof is the size of the largest encoded proof, in bytes.
const MaxProof = 2 + maxDepth/8 + maxDepth*32 + 1 + 64

// MarshalBinary returns the canonical encoding: the number of siblings (2 bytes), a bit for each that is not zero, these, and the
// other leaf if there is one.
func (p Proof) MarshalBinary() ([]byte, error) {
	if len(p.Siblings) > maxDepth {
		return nil, ErrProof
	}
	var b cryptobyte.Builder
	b.AddUint16(uint16(len(p.Siblings)))
	present := make([]byte, (len(p.Siblings)+7)/8)
	for i := range p.Siblings {
		if !p.Siblings[i].IsZero() {
			present[i>>3] |= 0x80 >> (i & 7)
		}
	}
	b.AddBytes(present)
	for i := range p.Siblings {
		if !p.Siblings[i].IsZero() {
			b.AddBytes(p.Siblings[i][:])
		}
	}
	if p.Other == nil {
		b.AddUint8(0)
	} else {
		b.AddUint8(1)
		b.AddBytes(p.Other.Key[:])
		b.AddBytes(p.Other.ValueHash[:])
	}
	return b.Bytes()
}

var errEncoding = errors.New("malformed Merkle proof: ask another replica")

// ParseProof parses what [Proof.MarshalBinary] wrote, and only that.
func ParseProof(data []byte) (Proof, error) {
	s := cryptobyte.String(data)
	p, ok := readProof(&s)
	if !ok || !s.Empty() {
		return Proof{}, errEncoding
	}
	return p, nil
}

func readProof(s *cryptobyte.String) (p Proof, ok bool) {
	var depth uint16
	var present []byte
	if !s.ReadUint16(&depth) || depth > maxDepth || !s.ReadBytes(&present, (int(depth)+7)/8) {
		return p, false
	}
	if rest := depth & 7; rest != 0 && present[len(present)-1]<<rest != 0 {
		return p, false // padding bits must be zero
	}
	if depth > 0 {
		p.Siblings = make([]bft.Digest, depth)
	}
	for i := range p.Siblings {
		if present[i>>3]&(0x80>>(i&7)) == 0 {
			continue
		}
		if !s.CopyBytes(p.Siblings[i][:]) || p.Siblings[i].IsZero() {
			return p, false
		}
	}
	var other uint8
	if !s.ReadUint8(&other) || other > 1 {
		return p, false
	}
	if other == 1 {
		p.Other = new(OtherLeaf)
		return p, s.CopyBytes(p.Other.Key[:]) && s.CopyBytes(p.Other.ValueHash[:])
	}
	return p, true
}
