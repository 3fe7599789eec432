package store_test

import (
	"fmt"
	"log"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/store"
)

func Example() {
	s, err := store.Open("data", bft.ClusterID{1}, store.Options{FS: vfs.NewMem()})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	vote := bft.Vote{Statement: bft.Statement{Epoch: 1, View: 7, Kind: bft.Nullify}, First: true}
	b := s.NewBatch()
	if err := b.PutVote(vote); err != nil {
		log.Fatal(err)
	}
	if err := b.Commit(true); err != nil { // on disk before it is signed
		log.Fatal(err)
	}
	restored, err := s.Restore(1)
	fmt.Println(restored.Votes[0].Kind, restored.Votes[0].View, err)
	// Output: nullify 7 <nil>
}
