package keystore_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"github.com/reseal-bft/reseal/keystore"
)

// An operator approves a release before any machine has booted it: from the
// digests of what the boot chain will measure, without a TPM.
func ExampleApprove() {
	operator, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		fmt.Println(err)
		return
	}
	release := keystore.PCRValue{Index: 14, Digest: keystore.PredictPCR(
		sha256.Sum256([]byte("the binary")), sha256.Sum256([]byte("its configuration")))}
	approval, err := keystore.Approve(rand.Reader, operator, keystore.BootState{
		PCRs:    []keystore.PCRValue{release},
		Version: 1, // Status.ApprovalVersion of the keystore
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(approval.Verify(&operator.PublicKey))
	// Output: <nil>
}
