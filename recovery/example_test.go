package recovery_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery"
)

// An operator orders the recovery of replica 3. The encoded order goes from operator to operator until enough have signed, and then into the log.
func ExampleOrder() {
	public, operator, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	genesis := &recovery.Genesis{Operators: []ed25519.PublicKey{public}, OperatorQuorum: 1} // and all the rest

	order := &recovery.Order{Sequence: 1, Body: &recovery.StartRound{Due: []bft.ReplicaID{3}}}
	if err := order.Sign(genesis, operator); err != nil {
		panic(err)
	}
	encoded, err := recovery.Encode(order)
	if err != nil {
		panic(err)
	}
	operation, err := recovery.Parse(encoded)
	if err != nil {
		panic(err)
	}
	received := operation.(*recovery.Order)
	fmt.Println(received.Sequence, received.Body.(*recovery.StartRound).Due, len(received.Signatures))
	// Output: 1 [3] 1
}
