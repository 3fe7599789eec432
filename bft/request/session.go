package request

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
)

// Window is the number of requests that a client may have outstanding, and of slots of its session.
const Window = 64

const (
	sessionDomain = "reseal/v1/session\x00"
	floorDomain   = "reseal/v1/session-floor\x00"
	resultsDomain = "reseal/v1/results\x00"
	stateDomain   = "reseal/v1/state\x00"
)

// A sequence number is made of a height that was final when the request was made, 40 bits; a
// counter, 18; and the slot, 6.
const (
	boundShift   = 24
	counterTicks = 1 << 17 // where the counter begins; each slot has as many more
	tick         = 4 * time.Millisecond
)

// Bound is the height that a sequence number is bound to: the request is executed above that
// height, and while the session lasts that was begun there.
func Bound(sequence uint64) bft.Height { return bft.Height(sequence >> boundShift) }

// NextSequence returns a number for the next request of a slot, bound to a height that the client
// knows to be final: greater than the last one of the slot, 0 if there is none. By the time of day
// it is greater, too, than those of an earlier process with the same key that was bound to the same
// height.
func NextSequence(last, slot uint64, height bft.Height, now time.Time) uint64 {
	count := uint64(now.UnixMilli()) / uint64(tick.Milliseconds()) % counterTicks
	next := uint64(height)<<boundShift | count*Window | slot%Window
	if last > 0 {
		next = max(next, last+Window)
	}
	if next == 0 { // numbers begin at 1
		next = Window
	}
	return next
}

// Sessions are ended by the log, the oldest first: those that executed nothing for [SessionBlocks]
// blocks, and while there are more than [SessionRecords] records.
const (
	SessionBlocks  = 1 << 16
	SessionRecords = 1 << 17
)

// SessionFloor is the key, in the map of sessions, of the least height that requests may be bound
// to, 8 bytes; it is absent while no session was ended for want of room.
func SessionFloor() bft.Digest { return sha256.Sum256([]byte(floorDomain)) }

// SessionLeaf returns the key, in the map of sessions, of the slot that a request belongs to. The
// value there is a [Record].
func SessionLeaf(client ed25519.PublicKey, sequence uint64) bft.Digest {
	b := make([]byte, 0, len(sessionDomain)+ed25519.PublicKeySize+1)
	b = append(b, sessionDomain...)
	b = append(b, client...)
	return sha256.Sum256(append(b, byte(sequence%Window)))
}

// Record is what a session's slot holds: the last request that was executed in it, where, and what
// came of it.
type Record struct {
	Sequence uint64
	// Height is that of the block that carried the request.
	Height bft.Height
	// Results is the [ResultsDigest] of the operations' results.
	Results bft.Digest
}

const recordSize = 8 + 8 + 32

// MarshalBinary returns the canonical encoding, 48 bytes.
func (r Record) MarshalBinary() []byte {
	b := make([]byte, 0, recordSize)
	b = binary.BigEndian.AppendUint64(b, r.Sequence)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Height))
	return append(b, r.Results[:]...)
}

// ParseRecord parses what [Record.MarshalBinary] wrote.
func ParseRecord(data []byte) (Record, error) {
	s := cryptobyte.String(data)
	r, ok := readRecord(&s)
	if !ok || !s.Empty() {
		return Record{}, malformed("session record", "its size")
	}
	return r, nil
}

func readRecord(s *cryptobyte.String) (r Record, ok bool) {
	ok = s.ReadUint64(&r.Sequence) && s.ReadUint64((*uint64)(&r.Height)) && s.CopyBytes(r.Results[:])
	return r, ok
}

// ResultsDigest is the digest by which a [Record] binds the results of a request's operations.
func ResultsDigest(results [][]byte) bft.Digest {
	h := sha256.New()
	h.Write([]byte(resultsDomain))
	var length [4]byte
	for _, result := range results {
		binary.BigEndian.PutUint32(length[:], uint32(len(result)))
		h.Write(length[:])
		h.Write(result)
	}
	return bft.Digest(h.Sum(nil))
}

// StateRoot is the digest that a block's header binds: that of the replicated state after the block
// of the given height, made of the roots of the application, the clients' sessions and the system.
func StateRoot(height bft.Height, application, sessions, system bft.Digest) bft.Digest {
	b := make([]byte, 0, len(stateDomain)+8+3*32)
	b = append(b, stateDomain...)
	b = binary.BigEndian.AppendUint64(b, uint64(height))
	b = append(b, application[:]...)
	b = append(b, sessions[:]...)
	return sha256.Sum256(append(b, system[:]...))
}
