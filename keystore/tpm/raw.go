package tpm

import (
	"encoding/binary"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// Commands that go-tpm does not have.

const (
	tagNoSessions = 0x8001
	tagSessions   = 0x8002
	resetOffset   = 16 // of resetCount in TPMS_TIME_INFO (Part 2, section 10.11.6)
)

// send sends a command without sessions or with one password session, and returns
// the TPM's error.
func (c *conn) send(tag uint16, cc tpm2.TPMCC, body []byte) error {
	cmd := binary.BigEndian.AppendUint16(nil, tag)
	cmd = binary.BigEndian.AppendUint32(cmd, uint32(headerSize+len(body)))
	cmd = binary.BigEndian.AppendUint32(cmd, uint32(cc))
	rsp, err := c.Send(append(cmd, body...))
	if err != nil {
		return err
	}
	if rc := tpm2.TPMRC(binary.BigEndian.Uint32(rsp[6:headerSize])); rc != tpm2.TPMRCSuccess {
		return rc
	}
	return nil
}

// policyResetCount is TPM2_PolicyCounterTimer (Part 3, section 23.10): resetCount
// equals a value, and restartCount, which follows it, is 0.
func policyResetCount(c *conn, session tpm2.TPMHandle, resetCount uint32) error {
	body := binary.BigEndian.AppendUint32(nil, uint32(session))
	body = binary.BigEndian.AppendUint16(body, 8)
	body = binary.BigEndian.AppendUint32(body, resetCount)
	body = binary.BigEndian.AppendUint32(body, 0)
	body = binary.BigEndian.AppendUint16(body, resetOffset)
	body = binary.BigEndian.AppendUint16(body, uint16(tpm2.TPMEOEq))
	return c.send(tagNoSessions, tpm2.TPMCCPolicyCounterTimer, body)
}

// policyRestart is TPM2_PolicyRestart (Part 3, section 11.2).
func policyRestart(c *conn, session tpm2.TPMHandle) error {
	return c.send(tagNoSessions, tpm2.TPMCCPolicyRestart, binary.BigEndian.AppendUint32(nil, uint32(session)))
}

// password is the authorization area of a command: one password session.
func password(auth authorization) []byte {
	area := passwordAuth(auth)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(area))), area...)
}

// passwordAuth is one password session.
func passwordAuth(auth authorization) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(tpm2.TPMRSPW))
	b = binary.BigEndian.AppendUint16(b, 0) // nonce
	b = append(b, 0)                        // attributes
	b = binary.BigEndian.AppendUint16(b, uint16(len(auth)))
	return append(b, auth...)
}

// byHierarchy sends a command with the handle of a hierarchy, whose authorization is
// proven by a session.
func (r *root) byHierarchy(c *conn, cc tpm2.TPMCC, h tpm2.TPMHandle, auth authorization, parameters []byte) error {
	session := r.once(plain, auth)
	if err := session.Init(c); err != nil {
		return err
	}
	err := session.NewNonceCaller()
	if err == nil {
		var proof *tpm2.TPMSAuthCommand
		if proof, err = session.Authorize(cc, parameters, nil, []tpm2.TPM2BName{tpm2.HandleName(h)}, 0); err == nil {
			area := tpm2.Marshal(proof)
			body := binary.BigEndian.AppendUint32(nil, uint32(h))
			body = binary.BigEndian.AppendUint32(body, uint32(len(area)))
			err = c.send(tagSessions, cc, slices.Concat(body, area, parameters))
		}
	}
	if err != nil {
		_ = session.CleanupFailure(c)
	}
	return err
}

// disableClear is TPM2_ClearControl (Part 3, section 24.7): TPM2_Clear does not work any
// more, until the platform hierarchy allows it.
func (r *root) disableClear(c *conn, auth authorization) error {
	return r.byHierarchy(c, tpm2.TPMCCClearControl, tpm2.TPMRHLockout, auth, []byte{1})
}

// setPolicy is TPM2_SetPrimaryPolicy (Part 3, section 24.3): what authorizes a hierarchy
// beside its authorization; nothing does by an empty policy.
func (r *root) setPolicy(c *conn, h tpm2.TPMHandle, auth authorization, policy []byte) error {
	alg := tpm2.TPMAlgSHA256
	if len(policy) == 0 {
		alg = tpm2.TPMAlgNull
	}
	parameters := binary.BigEndian.AppendUint16(nil, uint16(len(policy)))
	parameters = binary.BigEndian.AppendUint16(append(parameters, policy...), uint16(alg))
	return r.byHierarchy(c, tpm2.TPMCCSetPrimaryPolicy, h, auth, parameters)
}

// disablePlatform is TPM2_HierarchyControl (Part 3, section 24.2): no more use of the
// platform hierarchy until the next reset.
func disablePlatform(c *conn) error {
	body := binary.BigEndian.AppendUint32(nil, uint32(tpm2.TPMRHPlatform))
	body = append(body, password("")...)
	body = binary.BigEndian.AppendUint32(body, uint32(tpm2.TPMRHPlatform))
	return c.send(tagSessions, tpm2.TPMCCHierarchyControl, append(body, 0))
}
