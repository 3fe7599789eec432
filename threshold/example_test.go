package threshold_test

import (
	"crypto/rand"
	"fmt"
	"log"

	"github.com/reseal-bft/reseal/threshold"
)

// Six receivers generate a key that no one of them knows, and any four of them sign with it.
func Example() {
	params := threshold.Params{N: 6, T: 4, F: 1}

	// Two receivers deal (F+1: one of them is correct), everybody verifies its part of each dealing.
	commitments := map[int]*threshold.Commitment{}
	parts := make([]map[int]*threshold.Part, params.N+1)
	for dealer := 1; dealer <= params.F+1; dealer++ {
		dealing, err := threshold.Deal(rand.Reader, params, fmt.Appendf(nil, "example, dealer %d", dealer))
		if err != nil {
			log.Fatal(err)
		}
		commitments[dealer] = dealing.Commitment()
		for receiver := 1; receiver <= params.N; receiver++ {
			part, err := dealing.Part(receiver) // travels over a confidential channel
			if err != nil {
				log.Fatal(err)
			}
			if err := commitments[dealer].VerifyPart(part); err != nil {
				log.Fatal(err)
			}
			if parts[receiver] == nil {
				parts[receiver] = map[int]*threshold.Part{}
			}
			parts[receiver][dealer] = part
		}
		dealing.Wipe()
	}
	key, err := threshold.KeyGeneration(commitments)
	if err != nil {
		log.Fatal(err)
	}

	// Receivers 2, 3, 5 and 6 sign.
	msg := []byte("hello")
	var partials []threshold.PartialSignature
	for _, receiver := range []int{2, 3, 5, 6} {
		share, err := key.Share(parts[receiver])
		if err != nil {
			log.Fatal(err)
		}
		partials = append(partials, share.Sign(msg))
	}
	signature, _, err := key.Sharing().Combine(msg, partials)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(signature), "bytes; verified:", key.Sharing().GroupKey().Verify(msg, signature) == nil)
	// Output: 48 bytes; verified: true
}
