package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore/mutant"
)

// timeAsker is the connection for a TPM2_GetTime. go-tpm uses the endorsement hierarchy
// by an empty authorization only, so this exchanges that on the way, and back in the
// answer.
type timeAsker struct {
	*conn
	first []byte // the authorization instead of the empty one
}

// Where a command with two handles has its authorizations (their size, then the first),
// and how long an empty one is: its session, no nonce, attributes, no HMAC.
const (
	authsSize     = headerSize + 4 + 4
	firstAuth     = authsSize + 4
	emptyAuthSize = 4 + 2 + 1 + 2
)

// withTime calls f with a connection for one TPM2_GetTime, in which the endorsement
// hierarchy is used by keystore.TimePolicy. A keystore that is made to be tried sets no
// policy, and has what it was given of the hierarchy's authorization.
func (s *Store) withTime(c *conn, f func(t *timeAsker) error) error {
	if s.slot == checkSlot || mutant.Is(mutant.OpenHierarchies) {
		return f(&timeAsker{conn: c, first: passwordAuth(c.device.endorsement)})
	}
	session, end, err := tpm2.PolicySession(c, tpm2.TPMAlgSHA256, nonceSize)
	if err != nil {
		return fmt.Errorf("start a policy session: %w", err)
	}
	_, err = tpm2.PolicyCommandCode{PolicySession: session.Handle(), Code: tpm2.TPMCCGetTime}.Execute(c)
	if err == nil {
		first := binary.BigEndian.AppendUint32(nil, uint32(session.Handle().HandleValue()))
		err = f(&timeAsker{conn: c, first: append(first, make([]byte, emptyAuthSize-4)...)})
	}
	if err != nil {
		_ = end() // otherwise the TPM ended the session with the command
	}
	return err
}

// Send implements transport.TPM.
func (t *timeAsker) Send(cmd []byte) ([]byte, error) {
	if len(cmd) < firstAuth+emptyAuthSize || tpm2.TPMCC(binary.BigEndian.Uint32(cmd[6:])) != tpm2.TPMCCGetTime {
		return t.conn.Send(cmd)
	}
	cmd = slices.Concat(cmd[:firstAuth], t.first, cmd[firstAuth+emptyAuthSize:])
	longer := uint32(len(t.first) - emptyAuthSize)
	binary.BigEndian.PutUint32(cmd[authsSize:], binary.BigEndian.Uint32(cmd[authsSize:])+longer)
	binary.BigEndian.PutUint32(cmd[2:], uint32(len(cmd)))
	rsp, err := t.conn.Send(cmd)
	if err != nil || binary.BigEndian.Uint32(rsp[6:]) != uint32(tpm2.TPMRCSuccess) {
		return rsp, err
	}
	return asEmptyAuth(rsp)
}

var errNoAuthorization = errors.New("the TPM's answer does not end in authorizations")

// asEmptyAuth exchanges the first authorization of an answer for that of an empty one.
func asEmptyAuth(rsp []byte) ([]byte, error) {
	if len(rsp) < headerSize+4 {
		return nil, errNoAuthorization
	}
	parameters := binary.BigEndian.Uint32(rsp[headerSize:])
	if uint64(headerSize)+4+uint64(parameters) > uint64(len(rsp)) {
		return nil, errNoAuthorization
	}
	head, rest := rsp[:headerSize+4+parameters], rsp[headerSize+4+parameters:]
	for _, extra := range []int{1, 0} { // the nonce and the attributes, the HMAC
		if len(rest) < 2 {
			return nil, errNoAuthorization
		}
		size := 2 + int(binary.BigEndian.Uint16(rest)) + extra
		if len(rest) < size {
			return nil, errNoAuthorization
		}
		rest = rest[size:]
	}
	out := slices.Concat(head, []byte{0, 0, 1, 0, 0}, rest) // no nonce, the session continues, no HMAC
	binary.BigEndian.PutUint32(out[2:], uint32(len(out)))
	return out, nil
}
