package sim

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/reseal-bft/reseal/bft"
)

// keys is a certificate scheme without cryptography, for one cluster of one epoch: a partial
// signature is a keyed checksum that only its replica's handle makes, a certificate is the list of
// signers and the sum of their checksums. It has the properties that the protocol needs of a
// scheme, as long as the simulator hands out no foreign checksums.
type keys struct {
	secret uint64
	quorum int
}

const partialSize = 8

// partial is the checksum of one replica over a message.
func (k keys) partial(id bft.ReplicaID, message []byte) []byte {
	return binary.BigEndian.AppendUint64(nil, k.sum(id, message))
}

func (k keys) sum(id bft.ReplicaID, message []byte) uint64 {
	h := k.secret ^ uint64(id)*0x9e3779b97f4a7c15
	for len(message) >= 8 {
		h = mix(h ^ binary.LittleEndian.Uint64(message))
		message = message[8:]
	}
	for _, b := range message {
		h = mix(h ^ uint64(b))
	}
	return h
}

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Name implements [bft.Scheme].
func (k keys) Name() string { return "sim" }

var errTooFew = errors.New("too few good partial signatures")

// Combine implements [bft.Scheme].
func (k keys) Combine(message []byte, partials map[bft.ReplicaID][]byte) (signature []byte, bad []bft.ReplicaID, err error) {
	ids := make([]bft.ReplicaID, 0, len(partials))
	for id := range partials {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	var signers []bft.ReplicaID
	sum := uint64(0)
	for _, id := range ids {
		want := k.sum(id, message)
		if p := partials[id]; len(p) != partialSize || binary.BigEndian.Uint64(p) != want {
			bad = append(bad, id)
			continue
		}
		if len(signers) < k.quorum {
			signers = append(signers, id)
			sum += want
		}
	}
	if len(signers) < k.quorum {
		return nil, bad, errTooFew
	}
	signature = binary.BigEndian.AppendUint64(nil, sum)
	for _, id := range signers {
		signature = binary.BigEndian.AppendUint16(signature, uint16(id))
	}
	return signature, bad, nil
}

// Verify implements [bft.Scheme].
func (k keys) Verify(messages, signatures [][]byte) []bool {
	good := make([]bool, len(messages))
	for i := range messages {
		good[i] = k.verify(messages[i], signatures[i])
	}
	return good
}

func (k keys) verify(message, signature []byte) bool {
	if len(signature) != 8+2*k.quorum {
		return false
	}
	sum, last := uint64(0), bft.ReplicaID(0)
	for s := signature[8:]; len(s) > 0; s = s[2:] {
		id := bft.ReplicaID(binary.BigEndian.Uint16(s))
		if id <= last {
			return false
		}
		last = id
		sum += k.sum(id, message)
	}
	return sum == binary.BigEndian.Uint64(signature)
}
