package threshold_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"slices"

	"github.com/reseal-bft/reseal/threshold"
)

// Six receivers generate a key that no one of them knows, and any four of them sign with it.
func Example() {
	params := threshold.Params{N: 6, T: 4, F: 1}

	// Each receiver has an identity key, by which it acknowledges that it holds its part.
	identities := make([]ed25519.PrivateKey, params.N+1)
	for receiver := 1; receiver <= params.N; receiver++ {
		_, identities[receiver], _ = ed25519.GenerateKey(rand.Reader)
	}
	// acknowledged verifies a list of signatures, each behind its signer's index: of T receivers.
	acknowledged := func(message, certificate []byte) error {
		signers := map[byte]bool{}
		for entry := range slices.Chunk(certificate, 1+ed25519.SignatureSize) {
			if i := int(entry[0]); i >= 1 && i <= params.N && ed25519.Verify(identities[i].Public().(ed25519.PublicKey), message, entry[1:]) {
				signers[entry[0]] = true
			}
		}
		if len(signers) < params.T {
			return errors.New("too few receivers hold their parts")
		}
		return nil
	}

	// Two receivers deal (F+1: one of them is correct), everybody verifies its part of each dealing.
	var dealings []*threshold.CertifiedDealing
	parts := make([]map[int]*threshold.Part, params.N+1)
	for dealer := 1; dealer <= params.F+1; dealer++ {
		context := fmt.Appendf(nil, "example, dealer %d", dealer)
		dealing, err := threshold.Deal(rand.Reader, params, context)
		if err != nil {
			log.Fatal(err)
		}
		commitment := dealing.Commitment()
		var certificate []byte
		for receiver := 1; receiver <= params.N; receiver++ {
			part, err := dealing.Part(receiver) // travels over a confidential channel
			if err != nil {
				log.Fatal(err)
			}
			if err := commitment.VerifyPart(part); err != nil {
				log.Fatal(err)
			}
			if parts[receiver] == nil {
				parts[receiver] = map[int]*threshold.Part{}
			}
			parts[receiver][dealer] = part
			certificate = append(append(certificate, byte(receiver)), ed25519.Sign(identities[receiver], commitment.AcknowledgementMessage())...)
		}
		dealing.Wipe()
		certified, err := commitment.Certify(threshold.Certification{Dealer: dealer, Context: context, Certificate: certificate, Verify: acknowledged})
		if err != nil {
			log.Fatal(err)
		}
		dealings = append(dealings, certified)
	}
	key, err := threshold.KeyGeneration(dealings...)
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
