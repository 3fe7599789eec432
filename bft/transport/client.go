package transport

import (
	"context"
	"crypto/ed25519"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/reseal-bft/reseal/bft"
)

// Client is a client's connection to one replica, without a certificate of its own. It connects
// when it is needed and again when it breaks. Safe for concurrent use.
type Client struct {
	cluster bft.ClusterID
	to      Peer

	mu   sync.Mutex
	grpc *grpc.ClientConn
	// vouched is the key for which the identity key vouched last, and when.
	vouched   ed25519.PublicKey
	vouchedOn []byte // the connection, as bind has it
	vouchedAt time.Time
	closed    bool
}

// Dial prepares a client's connection to a replica, whose identity is pinned. It does not wait for it.
func Dial(cluster bft.ClusterID, to Peer) (*Client, error) {
	conn, err := dial(dialTLS(cluster, to, nil, nil), to.Address)
	if err != nil {
		return nil, err
	}
	return &Client{cluster: cluster, to: to, grpc: conn}, nil
}

// Call calls a method of the replica. While there is no connection it waits for one, as long as ctx
// allows it, unless an attempt fails. Who answers had the use of the replica's identity key at some
// time: for what is not proven otherwise there is [Client.CallVouched].
func (c *Client) Call(ctx context.Context, method string, request []byte) ([]byte, error) {
	return call(ctx, c.conn(), c.to.ID, method, request)
}

func (c *Client) conn() *grpc.ClientConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.grpc
}

// renew makes the connection anew, unless that was done. Calls in flight fail.
func (c *Client) renew(old *grpc.ClientConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.grpc != old || c.closed {
		return
	}
	if conn, err := dial(dialTLS(c.cluster, c.to, nil, nil), c.to.Address); err == nil {
		c.grpc = conn
		_ = old.Close()
	}
}

// Close ends the connection. Calls in flight fail.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return c.grpc.Close()
}
