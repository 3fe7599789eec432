package governance_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// An operator orders the recovery of replica 3. The encoded order goes from operator to operator
// until enough have signed, and then into the log.
func ExampleOrder() {
	public, operator, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	genesis := &governance.Genesis{Operators: []ed25519.PublicKey{public}, OperatorQuorum: 1} // and all the rest

	order := &governance.Order{Sequence: 1, Body: &governance.StartRound{Due: []bft.ReplicaID{3}}}
	if err := order.Sign(genesis, operator); err != nil {
		panic(err)
	}
	encoded, err := governance.Encode(order)
	if err != nil {
		panic(err)
	}
	operation, err := governance.Parse(encoded)
	if err != nil {
		panic(err)
	}
	received := operation.(*governance.Order)
	fmt.Println(received.Sequence, received.Body.(*governance.StartRound).Due, len(received.Signatures))
	// Output: 1 [3] 1
}
