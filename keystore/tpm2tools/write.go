package tpm2tools

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"

	"github.com/reseal-bft/reseal/keystore"
)

// The files that [Write] makes.
const (
	Message   = "quote.msg"  // TPMS_ATTEST
	Signature = "quote.sig"  // TPMT_SIGNATURE
	PCRs      = "quote.pcrs" // the quoted values of the SHA-256 bank, ascending, one after the other
	Key       = "ak.pem"     // public key of the attestation key
	KeyArea   = "ak.pub"     // TPM2B_PUBLIC of it
	Nonce     = "nonce"      // qualifying data, hexadecimal

	// What else the TPM said of that nonce: TPMS_ATTEST, and the signature as openssl takes it (DER).
	Time, TimeSignature       = "time.msg", "time.sig"
	Counter, CounterSignature = "counter.msg", "counter.sig"
)

// Explained is how an auditor goes on from the command that [Write] returns: it is the same for every
// quote.
const Explained = `ak.pub is the public area of that key, as the genesis has it: compare members[N-1].attestation_key with

    tail -c +3 ak.pub | base64 -w0

What the TPM says of its resets, clock and firmware, and in two more statements about the same nonce, of the time since the
reset (TPM2_GetTime) and of its approval counter (TPM2_NV_Certify):

    tpm2_print -t TPMS_ATTEST quote.msg
    openssl dgst -sha256 -verify ak.pem -signature time.sig time.msg
    openssl dgst -sha256 -verify ak.pem -signature counter.sig counter.msg

The PCRs are those of the approved state (attestation.approved in the genesis, and what orders approved since), but for the
highest: the replica had claimed the boot, which extends it once more. So with

    extend() { printf %s "$1$2" | tr a-f A-F | basenc --base16 -d | sha256sum | cut -c1-64; }

the highest has to be what this prints, for the value in the approved state:

    extend VALUE $(printf 'reseal boot claimed v1' | sha256sum | cut -c1-64)

Where reseal launch stands for the boot chain, the value of PCR 14 in an approved state comes from the program, its
configuration and the genesis without the approved states:

    founding=$( (printf 'reseal/v1/founding\0'; jq -cj 'del(.attestation.approved)' genesis.json) | sha256sum | cut -c1-64)
    value=$(printf '0%.0s' $(seq 64)); for d in $(sha256sum RESEAL config.json | cut -c1-64) $founding; do value=$(extend $value $d); done; echo $value

On a machine whose firmware and boot loader measure, tpm2_eventlog shows what the lower PCRs were made of, and
reseal keystore predict computes them from that log.
`

// Write writes a quote to an existing directory, with the attestation key (TPMT_PUBLIC) that signed
// it and the nonce that it answers. It returns the command that verifies it there. Files that exist
// are not replaced.
func Write(dir string, attestationKey, nonce []byte, q *keystore.Quote) (command string, err error) {
	key, err := keystore.PublicKey(attestationKey)
	if err != nil {
		return "", fmt.Errorf("attestation key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	selection, err := keystore.SelectionOf(q.PCRs)
	if err != nil {
		return "", err
	}
	signature, err := tpmtSignature(q.Signature)
	if err != nil {
		return "", err
	}
	area := append(binary.BigEndian.AppendUint16(nil, uint16(len(attestationKey))), attestationKey...)
	timeSignature, err := derSignature(q.Time.Signature)
	if err != nil {
		return "", err
	}
	counterSignature, err := derSignature(q.Counter.Signature)
	if err != nil {
		return "", err
	}
	var values []byte
	for _, v := range q.PCRs {
		values = append(values, v.Digest[:]...)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{
		{Message, q.Attest}, {Signature, signature}, {PCRs, values},
		{Key, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})}, {Nonce, []byte(hex.EncodeToString(nonce) + "\n")},
		{KeyArea, area}, {Time, q.Time.Attest}, {TimeSignature, timeSignature}, {Counter, q.Counter.Attest}, {CounterSignature, counterSignature},
	} {
		if err := WriteNew(filepath.Join(dir, f.name), f.data); err != nil {
			return "", err
		}
	}
	return strings.Join([]string{
		"tpm2_checkquote", "--public", Key, "--message", Message, "--signature", Signature, "--pcr", PCRs, "--pcr-list", "sha256:" + selection.String(),
		"--hash-algorithm", "sha256", "--qualification", hex.EncodeToString(nonce),
	}, " "), nil
}

// WriteNew writes a file that does not exist yet.
func WriteNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("%w: choose another directory", err)
	}
	_, err = f.Write(data)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

const half = 32 // bytes of r, and of s

// derSignature is the encoding of an ECDSA signature outside of TPMs.
func derSignature(raw []byte) ([]byte, error) {
	if len(raw) != 2*half {
		return nil, fmt.Errorf("signature of %d bytes, not %d", len(raw), 2*half)
	}
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])})
}

// tpmtSignature is the TPM's encoding of an ECDSA signature with SHA-256 (TPM 2.0 Library, Part 2,
// section 11.3.4), from r and s of 32 bytes each.
func tpmtSignature(raw []byte) ([]byte, error) {
	if len(raw) != 2*half {
		return nil, fmt.Errorf("signature of %d bytes, not %d", len(raw), 2*half)
	}
	const ecdsa, sha256 = 0x0018, 0x000b
	b := binary.BigEndian.AppendUint16(nil, ecdsa)
	b = binary.BigEndian.AppendUint16(b, sha256)
	for _, n := range [][]byte{raw[:half], raw[half:]} {
		b = binary.BigEndian.AppendUint16(b, half)
		b = append(b, n...)
	}
	return b, nil
}
