package threshold

import (
	"errors"
	"fmt"
)

// linkDomain separates links between group keys from everything else signed.
const linkDomain = "reseal/group-key-link/v1"

// LinkMessage is what the old group key signs to pass its authority on to a new one.
func LinkMessage(old, next *PublicKey) []byte {
	b := append([]byte(linkDomain), old.Bytes()...)
	return append(b, next.Bytes()...)
}

// Link is one rotation of the group key: the next key, and the signature of the one before on
// LinkMessage.
type Link struct {
	Next      *PublicKey
	Signature Signature
}

// linkLen is the size of an encoded link.
const linkLen = PublicKeyLen + SignatureLen

// MaxLinks is the largest number of links that VerifyChain follows.
const MaxLinks = 4096

// VerifyChain follows rotations from a key that the caller trusts and returns the last. A chain that
// returns to a key that it left is refused: that key was given up for a reason.
func VerifyChain(trusted *PublicKey, links []Link) (*PublicKey, error) {
	if !trusted.made() {
		return nil, errors.New("threshold: a chain of group keys needs a trusted first key")
	}
	if len(links) > MaxLinks {
		return nil, fmt.Errorf("threshold: a chain of %d links: at most %d", len(links), MaxLinks)
	}
	seen := map[[PublicKeyLen]byte]bool{trusted.encoded: true}
	for i, l := range links {
		if !l.Next.made() || seen[l.Next.encoded] {
			return nil, fmt.Errorf("threshold: link %d of the chain of group keys leads nowhere new", i)
		}
		if err := trusted.Verify(LinkMessage(trusted, l.Next), l.Signature); err != nil {
			return nil, fmt.Errorf("threshold: link %d of the chain of group keys: %w", i, err)
		}
		trusted = l.Next
		seen[trusted.encoded] = true
	}
	return trusted, nil
}

// MarshalBinary encodes the link: the key, then the signature, 144 bytes.
func (l Link) MarshalBinary() ([]byte, error) {
	if !l.Next.made() {
		return nil, errors.New("threshold: a link without a key")
	}
	return append(l.Next.Bytes(), l.Signature[:]...), nil
}

// ParseLink decodes MarshalBinary; VerifyChain verifies.
func ParseLink(b []byte) (Link, error) {
	if len(b) != linkLen {
		return Link{}, fmt.Errorf("threshold: a link has %d bytes, not %d", linkLen, len(b))
	}
	next, err := ParsePublicKey(b[:PublicKeyLen])
	if err != nil {
		return Link{}, err
	}
	return Link{Next: next, Signature: Signature(b[PublicKeyLen:])}, nil
}
