package transport

import (
	"context"

	"google.golang.org/grpc"

	"github.com/reseal-bft/reseal/bft"
)

// Client is a client's connection to one replica, without a certificate of its own. It connects
// when it is needed and again when it breaks. Safe for concurrent use.
type Client struct {
	id   bft.ReplicaID
	conn *grpc.ClientConn
}

// Dial prepares a client's connection to a replica, whose identity is pinned. It does not wait for it.
func Dial(cluster bft.ClusterID, to Peer) (*Client, error) {
	conn, err := dial(dialTLS(cluster, to, nil, nil), to.Address)
	if err != nil {
		return nil, err
	}
	return &Client{id: to.ID, conn: conn}, nil
}

// Call calls a method of the replica. While there is no connection it waits for one, as long as ctx
// allows it, unless an attempt fails.
func (c *Client) Call(ctx context.Context, method string, request []byte) ([]byte, error) {
	return call(ctx, c.conn, c.id, method, request)
}

// Close ends the connection. Calls in flight fail.
func (c *Client) Close() error { return c.conn.Close() }
