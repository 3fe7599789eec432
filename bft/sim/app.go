package sim

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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

// service is the replicated application of the simulation: it executes each client's operations
// exactly once and in order, and collects the dealings that end an epoch.
type service struct {
	epoch    bft.Epoch
	height   bft.Height
	root     bft.Digest
	executed map[uint32]uint32 // by client, the number of its last operation
	dealers  map[uint32]bool
	needed   int // dealings that make a handoff
	hosted
}

// hosted is an application under test that the service carries along. A service on disk has its
// state, a running one has it.
type hosted struct {
	make      func() bft.Application
	operation func(client, number int) []byte
	app       bft.Application
	kept      bft.State
}

func newService(needed int, o Options) *service {
	s := &service{executed: make(map[uint32]uint32), dealers: make(map[uint32]bool), needed: needed}
	s.make, s.operation = o.Application, o.Operation
	return s
}

// clone returns a service as it is kept on disk.
func (s *service) clone() *service {
	c := *s
	c.executed, c.dealers = maps.Clone(s.executed), maps.Clone(s.dealers)
	if s.app != nil {
		c.app, c.kept = nil, s.app.State()
	}
	return &c
}

var errRestore = errors.New("the application's state does not survive WriteTo and Restore")

// wake makes the application of a service that was on disk.
func (s *service) wake() error {
	if s.make == nil {
		return nil
	}
	s.app = s.make()
	if s.kept == nil {
		return nil
	}
	var snapshot bytes.Buffer
	if _, err := s.kept.WriteTo(&snapshot); err != nil {
		return fmt.Errorf("write a snapshot: %w", err)
	}
	if err := s.app.Restore(&snapshot); err != nil {
		return fmt.Errorf("restore a snapshot: %w", err)
	}
	if s.app.State().Root() != s.kept.Root() {
		return errRestore
	}
	return nil
}

// host lets the application execute the operations that took effect, and adds what came of it to
// the hash.
func (s *service) host(b *bft.Block, effective []op, hash io.Writer) error {
	if s.app == nil {
		return nil
	}
	var operations []bft.Operation
	for _, o := range effective {
		if o.kind == opWrite {
			operations = append(operations, bft.Operation{Client: clientKey(o.source), Data: s.operation(int(o.source), int(o.number))})
		}
	}
	results := bft.NewResults([]int{len(operations)})
	if err := s.app.Apply(b.Height, b.Time, operations, results); err != nil {
		return fmt.Errorf("the application cannot go on: %w", err)
	}
	if n := results.Missing(); n > 0 {
		return fmt.Errorf("the application gave no result for %d of %d operations", n, len(operations))
	}
	for _, result := range results.Of(0) {
		digest := sha256.Sum256(result)
		hash.Write(digest[:])
	}
	root := s.app.State().Root()
	hash.Write(root[:])
	return nil
}

// clientKey is the key of a simulated client.
func clientKey(client uint32) ed25519.PublicKey {
	seed := sha256.Sum256(binary.BigEndian.AppendUint32(nil, client))
	return ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)
}

// apply executes a block and reports the operations that took effect.
func (s *service) apply(b *bft.Block, last bool) (effective []op, err error) {
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
	err = s.host(b, effective, hash)
	if last {
		s.epoch++
		clear(s.dealers)
	}
	hash.Sum(s.root[:0])
	return effective, err
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
