package recovery

import (
	"crypto/ed25519"
	"encoding/binary"
)

// listScheme verifies lists of epoch-key signatures: (replica, 64 bytes) ascending.
type listScheme struct {
	keys   []ed25519.PublicKey
	quorum int
}

func newListScheme(l *ledger) (Verifier, error) {
	s := listScheme{quorum: l.size.Quorum()}
	for i := range l.members {
		s.keys = append(s.keys, l.members[i].epochKey)
	}
	return s, nil
}

func (s listScheme) Verify(messages, signatures [][]byte) []bool {
	out := make([]bool, len(messages))
	for i := range messages {
		out[i] = s.verify(messages[i], signatures[i])
	}
	return out
}

func (s listScheme) verify(message, list []byte) bool {
	if len(list) != 66*s.quorum {
		return false
	}
	last := 0
	for ; len(list) > 0; list = list[66:] {
		id := int(binary.BigEndian.Uint16(list))
		if id <= last || id > len(s.keys) || !ed25519.Verify(s.keys[id-1], message, list[2:66]) {
			return false
		}
		last = id
	}
	return true
}
