package kv_test

import (
	"fmt"
	"log"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/kv"
)

func Example() {
	put, err := kv.Put([]byte("name"), []byte("value"))
	if err != nil {
		log.Fatal(err)
	}
	store := kv.New()
	results := bft.NewResults([]int{1}) // of one request with one operation
	if err := store.Apply(1, 0, []bft.Operation{{Data: put}}, results); err != nil {
		log.Fatal(err)
	}
	result, err := kv.ParseResult(results.Of(0)[0])
	fmt.Println(result.Status, err)

	// A replica answers a read from its state, a client checks it against the state's certified root.
	state := store.State()
	answer, proof, err := state.Query([]byte("name"))
	if err != nil {
		log.Fatal(err)
	}
	value, found, err := kv.VerifyQuery(state.Root(), []byte("name"), answer, proof)
	fmt.Printf("%s %v %v\n", value, found, err)
	// Output:
	// ok <nil>
	// value true <nil>
}
