package merkle

import (
	"crypto/sha256"
	"errors"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
)

// ErrProof says that a proof does not show what was claimed of a map with the given root.
var ErrProof = errors.New("the Merkle proof does not verify: the answer is not of the certified state; ask another replica")

// Proof shows, to one who knows only a map's root, what the map holds under one key. The zero value
// proves absence in the empty map.
type Proof struct {
	// Siblings are, for each inner node from the root down (at most 128), the hashes of the three
	// children beside the path, in order; zero for an empty subtree.
	Siblings [][Arity - 1]bft.Digest
	// Other is set where the path ends in the leaf of another key, which proves absence.
	Other *OtherLeaf
}

// OtherLeaf is what a proof of absence tells of the leaf in the way.
type OtherLeaf struct {
	Key, ValueHash bft.Digest
	Size           uint32 // of the value, in bytes
}

// Prove returns the proof of what the map holds under key: its value, or nothing.
func (m Map) Prove(key bft.Digest) Proof {
	var p Proof
	at := &m.root
	for depth := 0; at.inner != nil; depth++ {
		at = p.descend(at.inner, &key, depth)
	}
	p.end(at, &key)
	return p
}

// descend notes the children of a node beside the one towards key, and returns that.
func (p *Proof) descend(node *inner, key *bft.Digest, depth int) *ref {
	towards := int(digit(key, depth))
	var siblings [Arity - 1]bft.Digest
	for i := range siblings {
		siblings[i] = node[besides(towards, i)].hash
	}
	p.Siblings = append(p.Siblings, siblings)
	return &node[towards]
}

// end notes what is where the path to key ends.
func (p *Proof) end(at *ref, key *bft.Digest) {
	if at.leaf != nil && at.leaf.key != *key {
		p.Other = &OtherLeaf{Key: at.leaf.key, ValueHash: at.leaf.valueHash(), Size: at.leaf.size}
	}
}

// besides returns the place of the i-th child beside the one at the place towards.
func besides(towards, i int) int {
	if i < towards {
		return i
	}
	return i + 1
}

// Root returns the root of a map in which the proof shows that key has the given value, or is
// absent. It fails where the proof can show no such thing.
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
		h = hashLeaf(&key, &valueHash, uint32(len(value)))
	case p.Other != nil:
		if p.Other.Key == key || !sharesDigits(&p.Other.Key, &key, len(p.Siblings)) {
			return bft.Digest{}, ErrProof
		}
		h = hashLeaf(&p.Other.Key, &p.Other.ValueHash, p.Other.Size)
	}
	for depth := len(p.Siblings) - 1; depth >= 0; depth-- {
		towards := int(digit(&key, depth))
		var children [Arity]bft.Digest
		children[towards] = h
		for i, sibling := range p.Siblings[depth] {
			children[besides(towards, i)] = sibling
		}
		h = hashInner(&children)
	}
	return h, nil
}

// VerifyProof checks that the map with the given root holds value under key (present), or nothing
// (not present; value is ignored). It returns [ErrProof] where the proof does not show that.
func VerifyProof(root, key bft.Digest, value []byte, present bool, p Proof) error {
	got, err := p.Root(key, value, present)
	if err == nil && got != root {
		err = ErrProof
	}
	return err
}

// MaxProof is the size of the largest encoded proof, in bytes.
const MaxProof = 1 + maxDepth*(1+(Arity-1)*32) + 1 + 68

// MarshalBinary returns the canonical encoding: the number of inner nodes (1 byte); for each of
// them a byte that tells which of the siblings are not zero, and these; and the other leaf if there
// is one.
func (p Proof) MarshalBinary() ([]byte, error) {
	if len(p.Siblings) > maxDepth {
		return nil, ErrProof
	}
	var b cryptobyte.Builder
	b.AddUint8(uint8(len(p.Siblings)))
	for _, siblings := range p.Siblings {
		var present uint8
		for i := range siblings {
			if !siblings[i].IsZero() {
				present |= 1 << i
			}
		}
		b.AddUint8(present)
		for i := range siblings {
			if !siblings[i].IsZero() {
				b.AddBytes(siblings[i][:])
			}
		}
	}
	if p.Other == nil {
		b.AddUint8(0)
	} else {
		b.AddUint8(1)
		b.AddBytes(p.Other.Key[:])
		b.AddBytes(p.Other.ValueHash[:])
		b.AddUint32(p.Other.Size)
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
	var depth uint8
	if !s.ReadUint8(&depth) || depth > maxDepth {
		return p, false
	}
	if depth > 0 {
		p.Siblings = make([][Arity - 1]bft.Digest, depth)
	}
	for i := range p.Siblings {
		if !readSiblings(s, &p.Siblings[i]) {
			return p, false
		}
	}
	var other uint8
	if !s.ReadUint8(&other) || other > 1 {
		return p, false
	}
	if other == 1 {
		p.Other = new(OtherLeaf)
		return p, s.CopyBytes(p.Other.Key[:]) && s.CopyBytes(p.Other.ValueHash[:]) && s.ReadUint32(&p.Other.Size)
	}
	return p, true
}

func readSiblings(s *cryptobyte.String, siblings *[Arity - 1]bft.Digest) bool {
	var present uint8
	if !s.ReadUint8(&present) || present >= 1<<len(siblings) {
		return false
	}
	for i := range siblings {
		if present&(1<<i) == 0 {
			continue
		}
		if !s.CopyBytes(siblings[i][:]) || siblings[i].IsZero() {
			return false
		}
	}
	return true
}
