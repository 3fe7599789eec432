package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"math/big"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/keystore"
)

// quoteReason tells why a quote, which was refused, does not verify. It only finds the name for the refusal.
func quoteReason(q *keystore.Quote, attestationKey, nonce []byte) Reason {
	key, err := keystore.PublicKey(attestationKey)
	if err != nil || len(q.Signature) != 64 {
		return ReasonAttestationKey
	}
	digest := sha256.Sum256(q.Attest)
	r, s := new(big.Int).SetBytes(q.Signature[:32]), new(big.Int).SetBytes(q.Signature[32:])
	if !ecdsa.Verify(key, digest[:], r, s) {
		return ReasonAttestationKey
	}
	// TPMS_ATTEST begins with magic (4 bytes), type (2 bytes), qualifiedSigner and extraData (TPM 2.0 Library, Part 2, 10.12.12).
	var signer, extra cryptobyte.String
	attest := cryptobyte.String(q.Attest)
	if attest.Skip(6) && attest.ReadUint16LengthPrefixed(&signer) && attest.ReadUint16LengthPrefixed(&extra) && !bytes.Equal(extra, nonce) {
		return ReasonNonce
	}
	return ReasonQuote
}
