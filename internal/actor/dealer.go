package actor

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
)

// Deal is what a receiver gets as its part of a dealing.
type Deal string

const (
	// DealNothing has it wait in vain.
	DealNothing Deal = "nothing"
	// DealLate gives it the right part, after a second.
	DealLate Deal = "late"
	// DealRow gives it its row and no column, with which it would help others.
	DealRow Deal = "row"
	// DealWrong gives it a part with another value.
	DealWrong Deal = "wrong"
	// DealOther gives it a commitment that is not the others'.
	DealOther Deal = "other"
)

const methodPart = handoff + "part"

var errNoPart = errors.New("there is none for you")

// deals makes of an answer to a receiver what the conduct has for it. An answer is a commitment
// behind its length, in three bytes, and the part.
func (a *Actor) deals(ctx context.Context, to bft.ReplicaID, answer []byte) ([]byte, error) {
	s := cryptobyte.String(answer)
	var commitment cryptobyte.String
	deal := a.conduct.Load().Deals[to]
	switch deal {
	case "":
		return answer, nil
	case DealLate:
		return answer, pause(ctx, time.Second)
	case DealNothing:
		return nil, errNoPart
	}
	if !s.ReadUint24LengthPrefixed(&commitment) || len(s) < partHeader {
		return nil, errNoPart
	}
	part := slices.Clone([]byte(s))
	commitment = slices.Clone(commitment)
	switch deal {
	case DealRow:
		part = withoutColumn(part)
	case DealWrong:
		part[len(part)-1] ^= 1
	case DealOther:
		commitment[len(commitment)-1] ^= 1
	}
	var b cryptobyte.Builder
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(commitment) })
	b.AddBytes(part)
	return b.Bytes()
}

// Sizes in a part, see package threshold: before the scalars of row and column; where the length of
// the column stands; of a scalar.
const (
	partHeader = 7
	columnAt   = 5
	scalar     = 32
)

func withoutColumn(part []byte) []byte {
	column := scalar * int(binary.BigEndian.Uint16(part[columnAt:]))
	if column > len(part)-partHeader {
		return part
	}
	part = part[:len(part)-column]
	binary.BigEndian.PutUint16(part[columnAt:], 0)
	return part
}
