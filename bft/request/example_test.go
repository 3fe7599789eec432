package request_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"log"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
)

func Example() {
	cluster := bft.ClusterID{1}
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

	// One signature covers two operations.
	r, err := request.New(cluster, key, 1, request.Application, [][]byte{[]byte("first"), []byte("second")})
	if err != nil {
		log.Fatal(err)
	}
	received, err := request.Parse(r.Raw())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d %q %v\n", received.Sequence, received.Operations, received.Verify(cluster))
	fmt.Println(received.Verify(bft.ClusterID{2}))
	// Output:
	// 1 ["first" "second"] <nil>
	// the request's signature does not verify: it is forged, damaged, or meant for another cluster
}
