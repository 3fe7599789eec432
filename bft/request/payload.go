package request

import (
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
)

// PayloadSize returns the bytes that a request takes in a payload.
func PayloadSize(r *Request) int { return 3 + len(r.raw) }

// AppendPayload appends to b the payload of a block that carries the requests in this order. No
// requests give no bytes. The caller keeps the sum of [PayloadSize] within [bft.MaxPayload].
func AppendPayload(b []byte, requests []*Request) []byte {
	size := 0
	for _, r := range requests {
		size += PayloadSize(r)
	}
	b = slices.Grow(b, size)
	for _, r := range requests {
		b = appendPart(b, r.raw)
	}
	return b
}

// ParsePayload parses a block's payload. The requests are slices of it, so it must not be changed.
// Their signatures are not checked.
func ParsePayload(payload []byte) ([]*Request, error) {
	if len(payload) > bft.MaxPayload {
		return nil, malformed("payload", fmt.Sprintf("%d bytes: the limit is %d", len(payload), bft.MaxPayload))
	}
	var requests []*Request
	for s := cryptobyte.String(payload); !s.Empty(); {
		var raw cryptobyte.String
		if !s.ReadUint24LengthPrefixed(&raw) {
			return nil, malformed("payload", "it ends inside a request")
		}
		r, err := Parse(raw)
		if err != nil {
			return nil, err
		}
		requests = append(requests, r)
	}
	return requests, nil
}
