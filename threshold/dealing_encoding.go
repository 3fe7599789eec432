package threshold

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// First bytes of encoded secrets, so that one kind is never read as another.
const (
	partTag      = 0x50
	pointTag     = 0x51
	completedTag = 0x52 // a part that was completed from points
)

const (
	partHeaderLen = 1 + 3*2
	pointLen      = 1 + 2*2 + curve.ScalarLen
)

// SecretBytes encodes the part: tag, index, lengths of row and column (2 bytes each), scalars.
// The caller wipes the bytes. Nil once wiped.
func (p *Part) SecretBytes() []byte {
	if p == nil || p.row == nil {
		return nil
	}
	b := make([]byte, 0, partHeaderLen+(len(p.row)+len(p.column))*curve.ScalarLen)
	b = append(b, p.tag())
	for _, v := range []int{p.index, len(p.row), len(p.column)} {
		b = binary.BigEndian.AppendUint16(b, uint16(v))
	}
	for _, scalars := range [][]curve.Fr{p.row, p.column} {
		for i := range scalars {
			b = scalars[i].AppendBytes(b)
		}
	}
	return b
}

func (p *Part) tag() byte {
	if p.column == nil {
		return completedTag
	}
	return partTag
}

// ParsePart decodes SecretBytes of a part that a dealer gave, which has row and column. Whether the
// part fits a commitment is for VerifyPart to say.
func ParsePart(b []byte) (*Part, error) {
	p, err := parsePart(b, partTag)
	if err == nil && p.column == nil {
		p.Wipe()
		return nil, ErrNoColumn
	}
	return p, err
}

// ParseCompletedPart decodes SecretBytes of a part that was completed from points; see VerifyCompleted.
func ParseCompletedPart(b []byte) (*Part, error) {
	p, err := parsePart(b, completedTag)
	if err == nil && p.column != nil {
		p.Wipe()
		return nil, errors.New("threshold: a completed part has no column")
	}
	return p, err
}

func parsePart(b []byte, tag byte) (*Part, error) {
	if len(b) < partHeaderLen || b[0] != tag {
		return nil, errors.New("threshold: these bytes are no part of a dealing, or one of another kind")
	}
	index, rows, columns := int(binary.BigEndian.Uint16(b[1:])), int(binary.BigEndian.Uint16(b[3:])), int(binary.BigEndian.Uint16(b[5:]))
	if index < 1 || index > MaxReceivers || rows < 1 || rows > MaxReceivers || columns > MaxReceivers {
		return nil, errors.New("threshold: the numbers of the part are out of range")
	}
	b = b[partHeaderLen:]
	if len(b) != (rows+columns)*curve.ScalarLen {
		return nil, fmt.Errorf("threshold: a part of %d scalars in %d bytes", rows+columns, len(b))
	}
	scalars := make([]curve.Fr, rows+columns)
	for i := range scalars {
		if err := scalars[i].SetBytes(b[i*curve.ScalarLen : (i+1)*curve.ScalarLen]); err != nil {
			curve.Wipe(scalars)
			return nil, fmt.Errorf("threshold: part: %w", err)
		}
	}
	p := &Part{index: index, row: scalars[:rows:rows]}
	if columns > 0 {
		p.column = scalars[rows:]
	}
	return p, nil
}

// SecretBytes encodes the point: tag, From, To (2 bytes each), scalar. The caller wipes the bytes. Nil
// for the zero Point.
func (p *Point) SecretBytes() []byte {
	if p == nil || p.value == nil {
		return nil
	}
	b := append(make([]byte, 0, pointLen), pointTag)
	b = binary.BigEndian.AppendUint16(b, uint16(p.From))
	b = binary.BigEndian.AppendUint16(b, uint16(p.To))
	return p.value.AppendBytes(b)
}

// ParsePoint decodes SecretBytes. Whether the point fits a commitment is for Complete to find out.
func ParsePoint(b []byte) (Point, error) {
	if len(b) != pointLen || b[0] != pointTag {
		return Point{}, errors.New("threshold: these bytes are no point of a dealing")
	}
	p := Point{From: int(binary.BigEndian.Uint16(b[1:])), To: int(binary.BigEndian.Uint16(b[3:])), value: new(curve.Fr)}
	if p.From < 1 || p.From > MaxReceivers || p.To < 1 || p.To > MaxReceivers {
		return Point{}, errors.New("threshold: an index of the point is out of range")
	}
	if err := p.value.SetBytes(b[5:]); err != nil {
		return Point{}, fmt.Errorf("threshold: point: %w", err)
	}
	return p, nil
}
