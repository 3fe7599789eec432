package keystore

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/reseal-bft/reseal/keystore/mutant"
)

// Policies are digests that a TPM computes step by step while a session proves
// one condition after another; an object opens when its own digest is reached.
// The same computation here, in software, lets an operator approve a boot
// state without a TPM. See TPM 2.0 Part 3, section 23.
const (
	ccPolicyNV           = 0x00000149
	ccPolicySigned       = 0x00000160
	ccPolicyAuthorize    = 0x0000016a
	ccPolicyCommandCode  = 0x0000016c
	ccPolicyCounterTimer = 0x0000016d
	ccPolicyOR           = 0x00000171
	ccPolicyPCR          = 0x0000017f
	ccGetTime            = 0x0000014c

	opEqual           = 0x0000 // TPM_EO_EQ
	opUnsignedAtMost  = 0x0009 // TPM_EO_UNSIGNED_LE
	nvCounterWritten  = nvCounter | 1<<29
	nvCounter         = 1<<2 | 1<<4 | 1<<18 | 1<<25 // AUTHWRITE, NT=COUNTER, AUTHREAD, NO_DA
	nvCounterSize     = 8
	nvBase            = 0x01805200 // of the owner's range of NV indices
	handlesPerSlot    = 0x10
	epochCounterIndex = 0
	bootCounterIndex  = 1
)

// What separates the uses of a key from each other: the policyRef of approvals is
// made of approvalDomain and the device, that of a boot's use of the keys is UseRef.
const (
	approvalDomain = "reseal boot approval v2"
	UseRef         = "reseal use v1"
	resetOffset    = 16 // of resetCount in TPMS_TIME_INFO (Part 2, section 10.11.6)
)

// DeviceID names a TPM by its storage root key (TPMT_PUBLIC): an approval is made
// for one TPM, so that the value of another TPM's counter is of no use.
func DeviceID(root []byte) [sha256.Size]byte { return sha256.Sum256(root) }

// ApprovalRef returns the policyRef of the approvals for a keystore.
func ApprovalRef(device [sha256.Size]byte, slot uint8) [sha256.Size]byte {
	if mutant.Is(mutant.ApprovalsForAll) {
		device = [sha256.Size]byte{}
	}
	return sha256.Sum256(append(append([]byte(approvalDomain), device[:]...), slot))
}

// EpochCounter returns the NV index of the counter that sealing is bound to, in
// a slot of a TPM (a TPM may hold several keystores, for tests).
func EpochCounter(slot uint8) uint32 {
	return nvBase + uint32(slot)*handlesPerSlot + epochCounterIndex
}

// ApprovalCounter returns the NV index of the counter that revokes approvals.
func ApprovalCounter(slot uint8) uint32 {
	return nvBase + uint32(slot)*handlesPerSlot + bootCounterIndex
}

// CounterName returns the Name of a counter's NV index, once it was written.
func CounterName(index uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, index)
	b = binary.BigEndian.AppendUint16(b, tpmSHA256)
	b = binary.BigEndian.AppendUint32(b, nvCounterWritten)
	b = binary.BigEndian.AppendUint16(b, 0) // no policy
	b = binary.BigEndian.AppendUint16(b, nvCounterSize)
	return objectName(b)
}

// OperatorPublic returns the TPMT_PUBLIC under which a TPM loads the public part of
// a key outside it, such as the operator's: ECDSA P-256.
func OperatorPublic(key *ecdsa.PublicKey) ([]byte, error) {
	if key == nil || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("an operator key that approves boot states is an ECDSA P-256 key")
	}
	point, err := key.Bytes()
	if err != nil {
		return nil, fmt.Errorf("operator key: %w", err)
	}
	b := binary.BigEndian.AppendUint16(nil, tpmECC)
	b = binary.BigEndian.AppendUint16(b, tpmSHA256)
	b = binary.BigEndian.AppendUint32(b, attrUserWithAuth|attrSign)
	b = binary.BigEndian.AppendUint16(b, 0)       // no policy
	b = binary.BigEndian.AppendUint16(b, tpmNull) // no symmetric algorithm
	b = binary.BigEndian.AppendUint16(b, tpmNull) // any scheme
	b = binary.BigEndian.AppendUint16(b, tpmP256)
	b = binary.BigEndian.AppendUint16(b, tpmNull) // no key derivation
	b = append(binary.BigEndian.AppendUint16(b, 32), point[1:33]...)
	return append(binary.BigEndian.AppendUint16(b, 32), point[33:]...), nil
}

// policy is a policy digest under construction.
type policy [sha256.Size]byte

// extend is the step that all policy commands have in common.
func (p policy) extend(command uint32, args ...[]byte) policy {
	h := sha256.New()
	h.Write(p[:])
	h.Write(binary.BigEndian.AppendUint32(nil, command))
	for _, a := range args {
		h.Write(a)
	}
	return policy(h.Sum(nil))
}

// pcr is PolicyPCR.
func (p policy) pcr(values []PCRValue, selection Selection) policy {
	bitmap, digest := selection.bitmap(), PCRDigest(values)
	list := binary.BigEndian.AppendUint32(nil, 1)
	list = binary.BigEndian.AppendUint16(list, tpmSHA256)
	list = append(append(list, byte(len(bitmap))), bitmap[:]...)
	return p.extend(ccPolicyPCR, list, digest[:])
}

// nv is PolicyNV of a counter against a value.
func (p policy) nv(index uint32, operation uint16, value uint64) policy {
	operand := binary.BigEndian.AppendUint64(nil, value)
	operand = binary.BigEndian.AppendUint16(operand, 0) // offset
	args := sha256.Sum256(binary.BigEndian.AppendUint16(operand, operation))
	return p.extend(ccPolicyNV, args[:], CounterName(index))
}

// authorized is PolicyAuthorize: it replaces the digest by the name of a key.
func authorized(keyName, ref []byte) policy {
	first := policy{}.extend(ccPolicyAuthorize, keyName)
	return policy(sha256.Sum256(append(first[:], ref...)))
}

// signed is PolicySigned by a key, without a policyRef.
func (p policy) signed(keyName []byte) policy {
	first := p.extend(ccPolicySigned, keyName)
	return policy(sha256.Sum256(first[:]))
}

// boot is PolicyCounterTimer: resetCount equals a value, so it holds in one boot.
func (p policy) boot(resetCount uint32) policy {
	operand := binary.BigEndian.AppendUint32(nil, resetCount)
	operand = binary.BigEndian.AppendUint32(operand, 0) // restartCount
	operand = binary.BigEndian.AppendUint16(operand, resetOffset)
	args := sha256.Sum256(binary.BigEndian.AppendUint16(operand, opEqual))
	return p.extend(ccPolicyCounterTimer, args[:])
}

// either is PolicyOR: it replaces the digest.
func either(branches ...policy) policy {
	var all []byte
	for _, b := range branches {
		all = append(all, b[:]...)
	}
	return policy{}.extend(ccPolicyOR, all)
}

// GatePolicy returns the policy of the gate key: a boot state that the operator
// approved for this device and slot.
func GatePolicy(operatorPublic []byte, device [sha256.Size]byte, slot uint8) [sha256.Size]byte {
	ref := ApprovalRef(device, slot)
	return authorized(objectName(operatorPublic), ref[:])
}

// SealPolicy returns the policy that a secret of an epoch is sealed under: a
// boot state approved by the operator, and the slot's epoch counter not above value.
func SealPolicy(operatorPublic []byte, device [sha256.Size]byte, slot uint8, value uint64) [sha256.Size]byte {
	return policy(GatePolicy(operatorPublic, device, slot)).
		nv(EpochCounter(slot), opUnsignedAtMost, value)
}

// UsePolicy returns what the gate key signs when a boot is claimed: in the boot
// with this resetCount, as long as the TPM was not restarted or resumed in it,
// whoever holds the private part of a key (TPMT_PUBLIC). A restart (Startup(CLEAR)
// after Shutdown(STATE), which anybody may send) begins a boot with fresh PCRs and
// the same resetCount: it counts up restartCount (Part 1, section 36.7).
func UsePolicy(resetCount uint32, holder []byte) [sha256.Size]byte {
	return policy{}.boot(resetCount).signed(objectName(holder))
}

// UsePolicyOfAnyBoot is UsePolicy with a bug, for package mutant.
func UsePolicyOfAnyBoot(holder []byte) [sha256.Size]byte { return policy{}.signed(objectName(holder)) }

// TimePolicy returns the policy of the endorsement hierarchy, beside its
// authorization: it lets anybody ask a key that answers to him for the time, which is
// no power over anything, and nothing else.
func TimePolicy() [32]byte {
	return policy{}.extend(ccPolicyCommandCode, binary.BigEndian.AppendUint32(nil, ccGetTime))
}

// IdentityPolicy returns the policy of the identity key: what the gate key signed.
func IdentityPolicy(gate []byte) [sha256.Size]byte {
	return authorized(objectName(gate), []byte(UseRef))
}

// AttestationBranches returns the two ways to use the attestation key: what the
// gate key signed, or, for enrolment before any boot state is approved, the boot and
// the process that made it.
func AttestationBranches(gate []byte, resetCount uint32, enroller []byte) [2][sha256.Size]byte {
	return [2][sha256.Size]byte{IdentityPolicy(gate), UsePolicy(resetCount, enroller)}
}

// AttestationPolicy returns the policy of the attestation key.
func AttestationPolicy(gate []byte, resetCount uint32, enroller []byte) [sha256.Size]byte {
	b := AttestationBranches(gate, resetCount, enroller)
	return either(b[0], b[1])
}
