package replica

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/merkle"
	"github.com/reseal-bft/reseal/bft/request"
)

// ErrStale says that a request's session has moved on, and its outcome is no longer held.
var ErrStale = errors.New("the request was executed, or passed over, some time ago: its outcome is no longer held")

// ErrEnded says that the session that a request belongs to has ended. It is never executed from now on.
var ErrEnded = errors.New("the request's session has ended: whether it was executed before is not known any more")

// sessions ends the sessions of clients, by a rule that depends on the replicated state alone. A
// request is bound to a height that was final when it was made, so it is executed above that; what
// was executed longest ago is forgotten first, a block at a time, and from then on no request is
// executed that is bound below that block. So none is executed twice (docs/protocol.md,
// "Sessions"). It is used by the goroutine that executes.
type sessions struct {
	blocks, records int // the bounds; request's, but in tests

	of     merkle.Map      // what the rest was made of
	oldest []executedBlock // by height; a leaf may be in several, of which the last counts
	leaves int             // in oldest
}

// executedBlock is a block with requests that are remembered.
type executedBlock struct {
	height bft.Height
	leaves []bft.Digest
}

func newSessions() sessions {
	return sessions{blocks: request.SessionBlocks, records: request.SessionRecords}
}

// floorOf is the least height that a request may be bound to, to be executed at a height.
func (s *sessions) floorOf(m merkle.Map, height bft.Height) bft.Height {
	floor := height - min(height, bft.Height(s.blocks))
	if value, ok := m.Get(request.SessionFloor()); ok {
		floor = max(floor, bft.Height(binary.BigEndian.Uint64(value)))
	}
	return floor
}

// update returns the map after a block: with the records of what it has executed, and without those
// of the sessions that end.
func (s *sessions) update(m merkle.Map, height bft.Height, executed []merkle.Change) merkle.Map {
	if s.of.Root() != m.Root() {
		s.index(m)
	}
	stored := s.floorOf(m, 0)
	next := m.Update(executed)
	s.add(executedBlock{height, keysOf(executed)})
	size := func() int { return next.Len() - min(1, int(stored)) } // without the floor
	for expired := s.floorOf(m, height); len(s.oldest) > 0 && s.oldest[0].height < height; {
		end := s.oldest[0]
		full := size() > s.records
		if !full && end.height > expired {
			break
		}
		ended := s.forget(next, end)
		next = next.Update(ended)
		if full && len(ended) > 0 {
			floor := max(stored, end.height)
			next = next.Update([]merkle.Change{{Key: request.SessionFloor(), Value: binary.BigEndian.AppendUint64(nil, uint64(floor))}})
			stored = floor
		}
		s.oldest[0] = executedBlock{}
		s.oldest, s.leaves = s.oldest[1:], s.leaves-len(end.leaves)
	}
	if s.leaves > 2*next.Len()+1024 {
		s.index(next)
	}
	s.of = next
	return next
}

func keysOf(changes []merkle.Change) []bft.Digest {
	keys := make([]bft.Digest, len(changes))
	for i := range changes {
		keys[i] = changes[i].Key
	}
	return keys
}

func (s *sessions) add(b executedBlock) {
	if len(b.leaves) > 0 {
		s.oldest = append(s.oldest, b)
		s.leaves += len(b.leaves)
	}
}

// forget returns the changes by which the records go that are still a block's.
func (s *sessions) forget(m merkle.Map, b executedBlock) (changes []merkle.Change) {
	for _, leaf := range b.leaves {
		if value, ok := m.Get(leaf); ok && recordOf(value).Height == b.height {
			changes = append(changes, merkle.Change{Key: leaf, Delete: true})
		}
	}
	return changes
}

// index finds out which blocks the records of a map are of.
func (s *sessions) index(m merkle.Map) {
	byHeight := make(map[bft.Height][]bft.Digest)
	for leaf, value := range m.All() {
		if leaf != request.SessionFloor() {
			h := recordOf(value).Height
			byHeight[h] = append(byHeight[h], leaf)
		}
	}
	s.of, s.oldest, s.leaves = m, nil, 0
	for height, leaves := range byHeight {
		s.add(executedBlock{height, leaves})
	}
	slices.SortFunc(s.oldest, func(a, b executedBlock) int { return cmp.Compare(a.height, b.height) })
}

// recordOf reads a record of the ledger's own.
func recordOf(value []byte) request.Record {
	record, err := request.ParseRecord(value)
	if err != nil {
		panic("replica: the ledger wrote a session record that it cannot read: " + err.Error())
	}
	return record
}

// passed says why a request is not executed any more by a block of the given height, nil if it may be.
func (s *sessions) passed(m merkle.Map, r *request.Request, height bft.Height) error {
	switch {
	case r.Sequence <= lastSequence(m, r):
		return ErrStale
	case request.Bound(r.Sequence) < s.floorOf(m, height):
		return ErrEnded
	}
	return nil
}

// lastSequence returns the sequence number that the request's session slot has reached, 0 if none.
func lastSequence(sessions merkle.Map, r *request.Request) uint64 {
	value, ok := sessions.Get(request.SessionLeaf(r.Client, r.Sequence))
	if !ok {
		return 0
	}
	return recordOf(value).Sequence
}
