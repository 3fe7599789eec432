package tpm2tools

import (
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
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
	Nonce     = "nonce"      // qualifying data, hexadecimal
)

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

// tpmtSignature is the TPM's encoding of an ECDSA signature with SHA-256 (TPM 2.0 Library, Part 2,
// section 11.3.4), from r and s of 32 bytes each.
func tpmtSignature(raw []byte) ([]byte, error) {
	const half = 32
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
