package wholesim

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
)

// serving puts the attack before a method that the replica serves.
func (a *attack) serving(name string, serve transport.Method) transport.Method {
	return func(ctx context.Context, from *transport.Sender, request []byte) ([]byte, error) {
		a.mu.Lock()
		drips, lies, deals := a.does("drip"), a.does("lie"), a.does("dealer")
		late := time.Duration(a.rng.Int64N(int64(2 * time.Second)))
		how := a.rng.IntN(6)
		a.mu.Unlock()
		handoff := strings.HasPrefix(name, "reseal/handoff/")
		if drips && from != nil {
			if err := pause(ctx, late); err != nil {
				return nil, err
			}
		}
		if deals && handoff && from != nil {
			return a.deal(ctx, name, how, from, request, serve)
		}
		answer, err := serve(ctx, from, request)
		if err != nil || from == nil || handoff {
			return answer, err
		}
		if drips && name == "reseal/snapshot" && len(answer) > 17 {
			answer = answer[:17] // one byte of the snapshot at a time
		}
		if lies {
			answer = a.lie(name, how, answer)
		}
		return answer, nil
	}
}

// deal is what a Byzantine dealer and receiver does.
func (a *attack) deal(ctx context.Context, name string, how int, from *transport.Sender, request []byte, serve transport.Method) ([]byte, error) {
	if int(from.ID)%3 == how%3 {
		return nil, errByzantine // nothing for some
	}
	answer, err := serve(ctx, from, request)
	if err != nil || len(answer) == 0 {
		return answer, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case name == "reseal/handoff/part" && how < 4:
		return alterPart(a, answer), nil
	case name != "reseal/handoff/part" && how < 3:
		answer[a.rng.IntN(len(answer))] ^= 1 << a.rng.IntN(8)
	}
	return answer, nil
}

// lie alters an answer in state transfer.
func (a *attack) lie(name string, how int, answer []byte) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(answer) == 0 {
		return a.bytes(40)
	}
	switch how {
	case 0:
		answer[a.rng.IntN(len(answer))] ^= 1 << a.rng.IntN(8)
	case 1:
		answer = answer[:a.rng.IntN(len(answer))]
	case 2:
		if name == "reseal/snapshot-head" && len(answer) >= 8 { // a great size
			binary.BigEndian.PutUint64(answer, uint64(a.rng.IntN(1<<40)))
		}
	case 3:
		return a.bytes(a.rng.IntN(1 << 16))
	default:
		if name == "reseal/log" {
			return a.fork(answer)
		}
	}
	return answer
}

// fork makes of a piece of the log another: it ends with a block that this replica has signed in
// place of one of its own, and that a finalization proves. All is as it should be but for the
// finalization's signature. Without such a block it is the piece.
func (a *attack) fork(piece []byte) []byte {
	s := cryptobyte.String(piece)
	var count uint16
	if !s.ReadUint16(&count) {
		return piece
	}
	var blocks, forked [][]byte
	var twin *bft.Block
	for range count {
		var raw cryptobyte.String
		if !s.ReadUint24LengthPrefixed(&raw) {
			return piece
		}
		if b, err := bft.ParseBlock(raw); err == nil && b.Proposer == a.m.id {
			if t := a.twin(b); t != nil {
				if made, err := t.MarshalBinary(); err == nil {
					twin, forked = t, append(slices.Clone(blocks), made)
				}
			}
		}
		blocks = append(blocks, raw)
	}
	if twin == nil {
		return piece
	}
	proof := bft.Proof{Certificate: bft.Certificate{
		Statement: bft.Statement{Epoch: twin.Epoch, View: twin.View, Kind: bft.Finalize, Block: twin.Digest()}, Signature: a.bytes(48),
	}}
	proven, err := proof.MarshalBinary()
	if err != nil {
		return piece
	}
	var b cryptobyte.Builder
	b.AddUint16(uint16(len(forked)))
	for _, raw := range forked {
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(raw) })
	}
	b.AddBytes(proven)
	return b.BytesOrPanic()
}
