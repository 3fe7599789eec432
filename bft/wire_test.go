package bft

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// samples are one message of each kind and form.
func samples() []Message {
	header := Header{
		Epoch: 1, View: 2, Height: 3, Proposer: 4, Parent: Digest{5}, ParentView: 1, Time: 6, Payload: PayloadDigest([]byte("payload")),
		StateHeight: 1, StateRoot: Digest{7}, EpochEnd: true,
	}
	other := header
	other.Time++
	signature := bytes.Repeat([]byte{8}, SignatureSize)
	empty := header
	empty.Payload = emptyPayload
	return []Message{
		&Block{header, signature, []byte("payload")},
		&Block{empty, signature, nil},
		Vote{Statement{1, 2, Notarize, Digest{9}}, true, []byte{1, 2, 3}},
		Vote{Statement{1, 2, Nullify, Digest{}}, false, []byte{1}},
		Vote{Statement{1, 2, Finalize, Digest{9}}, false, []byte{1}},
		Certificate{Statement{1, 2, Finalize, Digest{9}}, []byte("signature")},
		SignedHeader{header, signature},
		newEvidence(SignedHeader{header, signature}, SignedHeader{other, signature}),
		Status{1, 2, 3, 3, true},
	}
}

func TestMessagesSurviveTheWire(t *testing.T) {
	for _, m := range samples() {
		parsed, err := ParseMessage(MarshalMessage(m))
		require.NoErrorf(t, err, "%T", m)
		require.Equal(t, m, parsed)
	}
}

func TestMalformedMessagesAreRefused(t *testing.T) {
	for _, m := range samples() {
		data := MarshalMessage(m)
		if _, ok := m.(*Block); !ok {
			_, err := ParseMessage(data[:1])
			require.Errorf(t, err, "%T", m)
		}
		wrongTag := bytes.Clone(data)
		wrongTag[0] = 99
		_, err := ParseMessage(wrongTag)
		require.Error(t, err)
	}
	refused := map[string]Message{
		"nullify with a block":      Vote{Statement{1, 2, Nullify, Digest{9}}, true, []byte{1}},
		"notarize without a block":  Vote{Statement{1, 2, Notarize, Digest{}}, true, []byte{1}},
		"unknown kind":              Vote{Statement{1, 2, 7, Digest{9}}, true, []byte{1}},
		"finalize as a first vote":  Vote{Statement{1, 2, Finalize, Digest{9}}, true, []byte{1}},
		"long partial signature":    Vote{Statement{1, 2, Notarize, Digest{9}}, true, make([]byte, MaxPartial+1)},
		"empty certificate":         Certificate{Statement{1, 2, Notarize, Digest{9}}, nil},
		"long certificate":          Certificate{Statement{1, 2, Notarize, Digest{9}}, make([]byte, MaxCertificate+1)},
		"payload that is not it":    &Block{samples()[0].(*Block).Header, make([]byte, SignatureSize), []byte("other")},
		"evidence of equal headers": Evidence{samples()[6].(SignedHeader), samples()[6].(SignedHeader)},
	}
	for name, m := range refused {
		_, err := ParseMessage(MarshalMessage(m))
		require.Error(t, err, name)
	}
	_, err := ParseMessage(nil)
	require.Error(t, err)
}

func TestBlockAliasesItsInput(t *testing.T) {
	data := MarshalMessage(samples()[0])
	m, err := ParseMessage(data)
	require.NoError(t, err)
	data[len(data)-1]++
	require.Equal(t, data[len(data)-1], m.(*Block).Payload[6], "the payload must not be a copy")
}

// What parses encodes to the same bytes: no message has two forms.
func FuzzParseMessage(f *testing.F) {
	for _, m := range samples() {
		f.Add(MarshalMessage(m))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseMessage(data)
		if err != nil {
			return
		}
		if !bytes.Equal(MarshalMessage(m), data) {
			t.Fatalf("%T has two encodings", m)
		}
	})
}

func TestGatewayChecksMeaning(t *testing.T) {
	cfg := Config{Epoch: 1, Size: Size{1, 1}, Self: 1, Leaders: []ReplicaID{4}, Window: 1}
	for _, m := range samples() {
		require.NoErrorf(t, cfg.Check(m), "%T", m)
	}
	other := cfg
	other.Epoch = 2
	for _, m := range samples() {
		require.Errorf(t, other.Check(m), "%T", m)
	}
	cfg.Leaders = []ReplicaID{3}
	require.Error(t, cfg.Check(samples()[0]))
	require.Error(t, cfg.Check(Vote{Statement: Statement{1, 2, Nullify, Digest{}}}))
	require.Error(t, cfg.Check(Vote{Statement: Statement{1, 0, Nullify, Digest{}}, Partial: []byte{1}}))
}
