package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"

	"github.com/reseal-bft/reseal/bft"
)

// opKind tells the operations of the simulated service apart.
type opKind uint8

const (
	opWrite opKind = 1 + iota // a client's operation
	opDeal                    // a replica's dealing for the next epoch
)

// op is an operation: the number-th of a client, or the dealing of a replica for the epoch after number.
type op struct {
	kind   opKind
	source uint32
	number uint32
}

const opSize = 9

func (o op) append(b []byte) []byte {
	b = append(b, byte(o.kind))
	b = binary.BigEndian.AppendUint32(b, o.source)
	return binary.BigEndian.AppendUint32(b, o.number)
}

func encodeOps(ops []op) []byte {
	if len(ops) == 0 {
		return nil
	}
	b := make([]byte, 0, len(ops)*opSize)
	for _, o := range ops {
		b = o.append(b)
	}
	return b
}

var errPayload = errors.New("the payload is no list of operations")

func decodeOps(payload []byte) ([]op, error) {
	if len(payload)%opSize != 0 {
		return nil, errPayload
	}
	var ops []op
	for ; len(payload) > 0; payload = payload[opSize:] {
		o := op{opKind(payload[0]), binary.BigEndian.Uint32(payload[1:]), binary.BigEndian.Uint32(payload[5:])}
		if o.kind != opWrite && o.kind != opDeal {
			return nil, errPayload
		}
		ops = append(ops, o)
	}
	return ops, nil
}

// service is the replicated application of the simulation: it executes each client's operations exactly once and in order, and
// collects the dealings that end an epoch.
type service struct {
	epoch    bft.Epoch
	height   bft.Height
	root     bft.Digest
	executed map[uint32]uint32 // by client, the number of its last operation
	dealers  map[uint32]bool
	needed   int // dealings that make a handoff
}

func newService(needed int) *service {
	return &service{executed: make(map[uint32]uint32), dealers: make(map[uint32]bool), needed: needed}
}

func (s *service) clone() *service {
	c := *s
	c.executed, c.dealers = maps.Clone(s.executed), maps.Clone(s.dealers)
	return &c
}

// apply executes a block and reports the operations that took effect.
func (s *service) apply(b *bft.Block, last bool) (effective []op) {
	ops, _ := decodeOps(b.Payload)
	s.height = b.Height
	hash := sha256.New()
	hash.Write(s.root[:])
	for _, o := range ops {
		if s.admit(o) {
			effective = append(effective, o)
			hash.Write(o.append(nil))
		}
	}
	hash.Write(binary.BigEndian.AppendUint64(nil, uint64(b.Height)))
	if last {
		s.epoch++
		clear(s.dealers)
	}
	hash.Sum(s.root[:0])
	return effective
}

func (s *service) admit(o op) bool {
	switch o.kind {
	case opWrite:
		if o.number != s.executed[o.source]+1 {
			return false
		}
		s.executed[o.source] = o.number
	case opDeal:
		if bft.Epoch(o.number) != s.epoch || s.dealers[o.source] {
			return false
		}
		s.dealers[o.source] = true
	}
	return true
}

// ready says that the next epoch's key is dealt.
func (s *service) ready() bool { return len(s.dealers) >= s.needed }
