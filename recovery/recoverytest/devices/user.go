package devices

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"math/big"
	"net"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/reseal-bft/reseal/bft"
)

// signsForAnybody asks a TPM for a signature under each key that stays in it, with no
// authorization, as any user of the machine may, and says whether one was made by the replica's
// identity.
func (f *tpmFleet) signsForAnybody(id bft.ReplicaID) (bool, error) {
	conn, err := net.Dial("unix", f.devices[id].Socket())
	if err != nil {
		return false, err
	}
	defer conn.Close()
	user := transport.FromReadWriteCloser(conn)
	parsed, err := x509.ParsePKIXPublicKey(f.genesis.Members[id-1].Identity)
	identity, ok := parsed.(*ecdsa.PublicKey)
	if err != nil || !ok {
		return false, err
	}
	const persistent, most = 0x81000000, 64
	found, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: persistent, PropertyCount: most}.Execute(user)
	if err != nil {
		return false, err
	}
	handles, err := found.CapabilityData.Data.Handles()
	if err != nil {
		return false, err
	}
	for _, h := range handles.Handle {
		if signs(user, h, identity) {
			return true, nil
		}
	}
	return false, nil
}

func signs(user transport.TPM, h tpm2.TPMHandle, identity *ecdsa.PublicKey) bool {
	public, err := tpm2.ReadPublic{ObjectHandle: h}.Execute(user)
	if err != nil {
		return false
	}
	digest := sha256.Sum256([]byte("a credential of the intruder's"))
	signed, err := tpm2.Sign{
		KeyHandle:  tpm2.AuthHandle{Handle: h, Name: public.Name, Auth: tpm2.PasswordAuth(nil)},
		Digest:     tpm2.TPM2BDigest{Buffer: digest[:]},
		InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256})},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(user)
	if err != nil {
		return false
	}
	signature, err := signed.Signature.Signature.ECDSA()
	return err == nil && ecdsa.Verify(identity, digest[:], new(big.Int).SetBytes(signature.SignatureR.Buffer), new(big.Int).SetBytes(signature.SignatureS.Buffer))
}
