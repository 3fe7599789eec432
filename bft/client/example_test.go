package client_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/client"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/threshold"
)

// writeAndRead is all that a program needs to use a cluster: its id, the replicas, the group public
// key, and a key of its own.
func writeAndRead(ctx context.Context, cluster bft.ClusterID, peers []transport.Peer, group *threshold.PublicKey, key ed25519.PrivateKey) error {
	c, err := client.New(client.Config{Cluster: cluster, Peers: peers, GroupKey: client.NewVerifier(group), Key: key})
	if err != nil {
		return err
	}
	defer c.Close()

	put, err := kv.Put([]byte("name"), []byte("value"))
	if err != nil {
		return err
	}
	results, err := c.Submit(ctx, put)
	if err != nil {
		return err
	}
	result, err := kv.ParseResult(results[0])
	if err != nil {
		return err
	}
	fmt.Println("written:", result.Status)

	var value []byte
	reply, err := c.Query(ctx, []byte("name"), time.Minute, func(r *request.ReadReply) (err error) {
		value, _, err = kv.VerifyQuery(r.AppRoot, []byte("name"), r.Answer, r.Proof)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Printf("read: %s, as of %s\n", value, reply.Time())
	return nil
}

func Example() {
	err := writeAndRead(context.Background(), bft.ClusterID{}, nil, nil, nil)
	fmt.Println(err)
	// Output: a client needs replicas to ask, the group public key, and a key of its own
}
