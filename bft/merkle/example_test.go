package merkle_test

import (
	"crypto/sha256"
	"fmt"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/merkle"
)

func Example() {
	key := bft.Digest(sha256.Sum256([]byte("name")))
	before := merkle.Map{}
	after := before.Update([]merkle.Change{{Key: key, Value: []byte("value")}})

	// Who knows only the roots believes the proofs.
	fmt.Println(merkle.VerifyProof(after.Root(), key, []byte("value"), true, after.Prove(key)))
	fmt.Println(merkle.VerifyProof(before.Root(), key, nil, false, before.Prove(key)))
	fmt.Println(merkle.VerifyProof(after.Root(), key, []byte("other"), true, after.Prove(key)))
	// Output:
	// <nil>
	// <nil>
	// the Merkle proof does not verify: the answer is not of the certified state; ask another replica
}
