package bft

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// Limits on parts of messages.
const (
	MaxPartial       = 1 << 10  // bytes of a partial signature
	MaxCertificate   = 64 << 10 // bytes of a certificate's signature (a list of signatures has 66 bytes a signer)
	SignatureSize    = 64       // bytes of a leader's signature
	signedHeaderSize = headerSize + SignatureSize
)

// tag is the first byte of an encoded message.
type tag uint8

const (
	tagBlock tag = 1 + iota
	tagVote
	tagCertificate
	tagSignedHeader
	tagEvidence
	tagStatus
)

var errMalformed = errors.New("malformed")

// MarshalMessage encodes a message for the wire: a tag byte and the message's own encoding,
// integers big-endian.
func MarshalMessage(m Message) []byte {
	switch m := m.(type) {
	case *Block:
		b := make([]byte, 0, 1+signedHeaderSize+len(m.Payload))
		return m.appendBinary(append(b, byte(tagBlock)))
	case Vote:
		return m.appendBinary([]byte{byte(tagVote)})
	case Certificate:
		return m.appendBinary([]byte{byte(tagCertificate)})
	case SignedHeader:
		return m.appendBinary([]byte{byte(tagSignedHeader)})
	case Evidence:
		return m.appendBinary([]byte{byte(tagEvidence)})
	case Status:
		return m.appendBinary([]byte{byte(tagStatus)})
	}
	panic(fmt.Sprintf("bft: %T is no message", m))
}

// ParseMessage decodes what [MarshalMessage] wrote, and nothing else: what parses encodes to the
// same bytes again. It checks form and limits; [Config.Check] checks meaning. The message refers to
// data, which must not change afterwards.
func ParseMessage(data []byte) (Message, error) {
	if len(data) == 0 || len(data) > MaxMessage {
		return nil, fmt.Errorf("message of %d bytes: need 1 to %d", len(data), MaxMessage)
	}
	body := data[1:]
	switch tag(data[0]) {
	case tagBlock:
		return asMessage(ParseBlock(body))
	case tagVote:
		return asMessage(ParseVote(body))
	case tagCertificate:
		return asMessage(ParseCertificate(body))
	case tagSignedHeader:
		return asMessage(ParseSignedHeader(body))
	case tagEvidence:
		return asMessage(ParseEvidence(body))
	case tagStatus:
		return asMessage(parseStatus(body))
	}
	return nil, fmt.Errorf("message with unknown tag %d", data[0])
}

// asMessage keeps a failed parse from becoming a message.
func asMessage[M Message](m M, err error) (Message, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}

// MarshalBinary encodes the block: header, signature, payload.
func (b *Block) MarshalBinary() ([]byte, error) {
	return b.appendBinary(make([]byte, 0, signedHeaderSize+len(b.Payload))), nil
}

func (b *Block) appendBinary(out []byte) []byte {
	out = SignedHeader{b.Header, b.Signature}.appendBinary(out)
	return append(out, b.Payload...)
}

// ParseBlock decodes a block and checks that the payload is the one its header commits to. The
// block's payload and signature are part of data, not copies.
func ParseBlock(data []byte) (*Block, error) {
	if len(data) < signedHeaderSize || len(data)-signedHeaderSize > MaxPayload {
		return nil, fmt.Errorf("block of %d bytes: need %d to %d", len(data), signedHeaderSize, signedHeaderSize+MaxPayload)
	}
	h, err := ParseSignedHeader(data[:signedHeaderSize])
	if err != nil {
		return nil, err
	}
	b := &Block{Header: h.Header, Signature: h.Signature}
	if payload := data[signedHeaderSize:]; len(payload) > 0 {
		b.Payload = payload
	}
	if PayloadDigest(b.Payload) != h.Header.Payload {
		return nil, errors.New("block: the payload is not the header's")
	}
	return b, nil
}

// ParseHeader decodes what [Header.AppendBinary] wrote.
func ParseHeader(data []byte) (Header, error) {
	var h Header
	var end uint8
	var at uint64
	s := cryptobyte.String(data)
	ok := s.ReadUint64((*uint64)(&h.Epoch)) && s.ReadUint64((*uint64)(&h.View)) && s.ReadUint64((*uint64)(&h.Height)) &&
		s.ReadUint16((*uint16)(&h.Proposer)) && s.CopyBytes(h.Parent[:]) && s.ReadUint64((*uint64)(&h.ParentView)) &&
		s.ReadUint64(&at) && s.CopyBytes(h.Payload[:]) && s.ReadUint64((*uint64)(&h.StateHeight)) &&
		s.CopyBytes(h.StateRoot[:]) && s.ReadUint8(&end) && s.Empty()
	if !ok || end > 1 {
		return Header{}, fmt.Errorf("header: %w", errMalformed)
	}
	h.Time, h.EpochEnd = int64(at), end == 1
	return h, nil
}

func (h SignedHeader) appendBinary(out []byte) []byte {
	out = h.Header.AppendBinary(out)
	return append(out, h.Signature...)
}

// MarshalBinary encodes the header and its signature.
func (h SignedHeader) MarshalBinary() ([]byte, error) { return h.appendBinary(nil), nil }

// ParseSignedHeader decodes a header and its signature.
func ParseSignedHeader(data []byte) (SignedHeader, error) {
	if len(data) != signedHeaderSize {
		return SignedHeader{}, fmt.Errorf("signed header: %w", errMalformed)
	}
	h, err := ParseHeader(data[:headerSize])
	if err != nil {
		return SignedHeader{}, err
	}
	return SignedHeader{h, data[headerSize:]}, nil
}

func (e Evidence) appendBinary(out []byte) []byte { return e.B.appendBinary(e.A.appendBinary(out)) }

// MarshalBinary encodes the two headers with their signatures.
func (e Evidence) MarshalBinary() ([]byte, error) { return e.appendBinary(nil), nil }

// ParseEvidence decodes evidence that [Evidence.Validate] accepts.
func ParseEvidence(data []byte) (Evidence, error) {
	if len(data) != 2*signedHeaderSize {
		return Evidence{}, fmt.Errorf("evidence: %w", errMalformed)
	}
	a, errA := ParseSignedHeader(data[:signedHeaderSize])
	b, errB := ParseSignedHeader(data[signedHeaderSize:])
	e := Evidence{a, b}
	if err := errors.Join(errA, errB); err != nil {
		return Evidence{}, fmt.Errorf("evidence: %w", err)
	}
	if err := e.Validate(); err != nil {
		return Evidence{}, err
	}
	return e, nil
}

func (s Statement) build(b *cryptobyte.Builder) {
	b.AddUint64(uint64(s.Epoch))
	b.AddUint64(uint64(s.View))
	b.AddUint8(uint8(s.Kind))
	b.AddBytes(s.Block[:])
}

// readStatement reads a statement and holds it to its one form: a nullify vote names no block.
func readStatement(in *cryptobyte.String, s *Statement) bool {
	ok := in.ReadUint64((*uint64)(&s.Epoch)) && in.ReadUint64((*uint64)(&s.View)) && in.ReadUint8((*uint8)(&s.Kind)) && in.CopyBytes(s.Block[:])
	return ok && s.Kind >= Notarize && s.Kind <= Finalize && s.Block.IsZero() == (s.Kind == Nullify)
}

func (v Vote) appendBinary(out []byte) []byte {
	b := cryptobyte.NewBuilder(out)
	v.Statement.build(b)
	first := uint8(0)
	if v.First {
		first = 1
	}
	b.AddUint8(first)
	b.AddBytes(v.Partial)
	return b.BytesOrPanic()
}

// MarshalBinary encodes the vote.
func (v Vote) MarshalBinary() ([]byte, error) { return v.appendBinary(nil), nil }

// ParseVote decodes a vote. Its partial signature may be empty in what a guard keeps, never in a
// message.
func ParseVote(data []byte) (Vote, error) {
	var v Vote
	var first uint8
	s := cryptobyte.String(data)
	ok := readStatement(&s, &v.Statement) && s.ReadUint8(&first)
	if !ok || first > 1 || first == 1 && v.Kind == Finalize || len(s) > MaxPartial {
		return Vote{}, fmt.Errorf("vote: %w", errMalformed)
	}
	v.First = first == 1
	if len(s) > 0 {
		v.Partial = s
	}
	return v, nil
}

func (c Certificate) appendBinary(out []byte) []byte {
	b := cryptobyte.NewBuilder(out)
	c.Statement.build(b)
	b.AddBytes(c.Signature)
	return b.BytesOrPanic()
}

// MarshalBinary encodes the certificate.
func (c Certificate) MarshalBinary() ([]byte, error) { return c.appendBinary(nil), nil }

// ParseCertificate decodes a certificate. Its signature remains to be checked.
func ParseCertificate(data []byte) (Certificate, error) {
	var c Certificate
	s := cryptobyte.String(data)
	if !readStatement(&s, &c.Statement) || len(s) == 0 || len(s) > MaxCertificate {
		return Certificate{}, fmt.Errorf("certificate: %w", errMalformed)
	}
	c.Signature = s
	return c, nil
}

func (s Status) appendBinary(out []byte) []byte {
	b := cryptobyte.NewBuilder(out)
	b.AddUint64(uint64(s.Epoch))
	b.AddUint64(uint64(s.View))
	b.AddUint64(uint64(s.FinalView))
	b.AddUint64(uint64(s.FinalHeight))
	want := uint8(0)
	if s.WantFinality {
		want = 1
	}
	b.AddUint8(want)
	return b.BytesOrPanic()
}

func parseStatus(data []byte) (Status, error) {
	var st Status
	var want uint8
	s := cryptobyte.String(data)
	ok := s.ReadUint64((*uint64)(&st.Epoch)) && s.ReadUint64((*uint64)(&st.View)) && s.ReadUint64((*uint64)(&st.FinalView)) &&
		s.ReadUint64((*uint64)(&st.FinalHeight)) && s.ReadUint8(&want) && s.Empty()
	if !ok || want > 1 {
		return Status{}, fmt.Errorf("status: %w", errMalformed)
	}
	st.WantFinality = want == 1
	return st, nil
}

// Check reports what is wrong with the meaning of a message, as far as no key is needed to see it.
// A gateway calls it on what peers send, then checks the leader's signature on blocks, signed
// headers and evidence (see [ProposalBytes]) and the form of the payload, and drops what fails.
func (cfg *Config) Check(m Message) error {
	switch m := m.(type) {
	case *Block:
		return cfg.checkHeader(&m.Header)
	case SignedHeader:
		return cfg.checkHeader(&m.Header)
	case Evidence:
		if err := cfg.checkHeader(&m.A.Header); err != nil {
			return err
		}
		return m.Validate()
	case Vote:
		if len(m.Partial) == 0 {
			return errors.New("a vote without a partial signature")
		}
		return cfg.checkStatement(m.Statement)
	case Certificate:
		return cfg.checkStatement(m.Statement)
	case Status:
		if m.Epoch != cfg.Epoch {
			return fmt.Errorf("a message of epoch %d in epoch %d", m.Epoch, cfg.Epoch)
		}
	}
	return nil
}

func (cfg *Config) checkHeader(h *Header) error {
	switch {
	case h.Epoch != cfg.Epoch:
		return fmt.Errorf("a block of epoch %d in epoch %d", h.Epoch, cfg.Epoch)
	case h.View == 0 || h.Proposer != cfg.LeaderOf(h.View):
		return fmt.Errorf("replica %d does not lead view %d", h.Proposer, h.View)
	case h.ParentView >= h.View || h.Height <= cfg.Base.Height:
		return errors.New("a block that is not above its parent")
	}
	return nil
}

func (cfg *Config) checkStatement(s Statement) error {
	if s.Epoch != cfg.Epoch || s.View == 0 {
		return fmt.Errorf("a statement on view %d of epoch %d in epoch %d", s.View, s.Epoch, cfg.Epoch)
	}
	return nil
}
