package store

import (
	"encoding/binary"

	"github.com/reseal-bft/reseal/bft"
)

// The first byte of each key.
const (
	prefixBlock       = 'b'
	prefixIndex       = 'i'
	prefixOpen        = 'o'
	prefixFinal       = 'f'
	prefixCertificate = 'c'
	prefixVote        = 'v'
	prefixMeta        = 'm'
)

func heightKey(prefix byte, h bft.Height) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefix}, uint64(h))
}

func heightDigestKey(prefix byte, h bft.Height, d bft.Digest) []byte {
	return append(heightKey(prefix, h), d[:]...)
}

func blockKey(h bft.Height, d bft.Digest) []byte { return heightDigestKey(prefixBlock, h, d) }
func openKey(h bft.Height, d bft.Digest) []byte  { return heightDigestKey(prefixOpen, h, d) }
func finalKey(h bft.Height) []byte               { return heightKey(prefixFinal, h) }
func indexKey(d bft.Digest) []byte               { return append([]byte{prefixIndex}, d[:]...) }
func metaKey(name string) []byte                 { return append([]byte{prefixMeta}, name...) }

// splitHeightDigest takes apart a key that heightDigestKey made.
func splitHeightDigest(key []byte) (h bft.Height, d bft.Digest, ok bool) {
	if len(key) != 1+8+32 {
		return 0, d, false
	}
	return bft.Height(binary.BigEndian.Uint64(key[1:])), bft.Digest(key[9:]), true
}

// certificatePrefix is what the keys of the certificates of one kind and epoch, from a view on,
// begin at.
func certificatePrefix(kind bft.VoteKind, e bft.Epoch, v bft.View) []byte {
	b := binary.BigEndian.AppendUint64([]byte{prefixCertificate, byte(kind)}, uint64(e))
	return binary.BigEndian.AppendUint64(b, uint64(v))
}

func certificateKey(s bft.Statement) []byte {
	return append(certificatePrefix(s.Kind, s.Epoch, s.View), s.Block[:]...)
}

func splitCertificateKey(key []byte) (s bft.Statement, ok bool) {
	if len(key) != 2+8+8+32 {
		return s, false
	}
	return bft.Statement{
		Kind:  bft.VoteKind(key[1]),
		Epoch: bft.Epoch(binary.BigEndian.Uint64(key[2:])),
		View:  bft.View(binary.BigEndian.Uint64(key[10:])),
		Block: bft.Digest(key[18:]),
	}, validKind(key[1])
}

func validKind(k byte) bool { return k >= byte(bft.Notarize) && k <= byte(bft.Finalize) }

func votePrefix(e bft.Epoch, v bft.View) []byte {
	b := binary.BigEndian.AppendUint64([]byte{prefixVote}, uint64(e))
	return binary.BigEndian.AppendUint64(b, uint64(v))
}

func voteKey(s bft.Statement) []byte {
	return append(append(votePrefix(s.Epoch, s.View), byte(s.Kind)), s.Block[:]...)
}

func splitVoteKey(key []byte) (s bft.Statement, ok bool) {
	if len(key) != 1+8+8+1+32 {
		return s, false
	}
	return bft.Statement{
		Epoch: bft.Epoch(binary.BigEndian.Uint64(key[1:])),
		View:  bft.View(binary.BigEndian.Uint64(key[9:])),
		Kind:  bft.VoteKind(key[17]),
		Block: bft.Digest(key[18:]),
	}, validKind(key[17])
}
