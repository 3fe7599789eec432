package replica_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/bft/request"
)

// BenchmarkOperations orders 128-byte writes in signed envelopes: durable votes and blocks, mutual
// TLS, threshold certificates; all replicas and clients in this process, on loopback. Replies are
// proven but their certificates not verified again by the clients.
func BenchmarkOperations(b *testing.B) {
	for _, size := range []bft.Size{{F: 1}, {F: 1, C: 1}} {
		for _, load := range []struct{ clients, envelope int }{{1, 1}, {4, 32}, {32, 100}} {
			b.Run(fmt.Sprintf("n=%d/clients=%d/envelope=%d", size.N(), load.clients, load.envelope), func(b *testing.B) {
				benchmarkOperations(b, size, load.clients, load.envelope)
			})
		}
	}
}

func benchmarkOperations(b *testing.B, size bft.Size, clients, envelope int) {
	c := newCluster(b, size)
	for i := range c.nodes {
		c.start(i)
	}
	warm := newClient(b)
	c.put(0, warm, 1, "warm", "up")
	var left atomic.Int64
	left.Store(int64(b.N))
	var group sync.WaitGroup
	b.ResetTimer()
	for id := range clients {
		group.Go(func() {
			key := newClient(b)
			value := make([]byte, 112)
			for sequence := uint64(1); left.Add(-int64(envelope)) > -int64(envelope); sequence++ {
				var operations [][]byte
				for i := range envelope {
					operation, err := kv.Put(fmt.Appendf(nil, "%02d/%05d/%03d", id, sequence%1000, i), value)
					require.NoError(b, err)
					operations = append(operations, operation)
				}
				c.order(id%size.N(), key, sequence, operations)
			}
		})
	}
	group.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "operations/s")
	b.ReportMetric(float64(c.nodes[0].replica.Status().Height), "blocks")
}

// order orders an envelope without verifying the reply's certificate.
func (c *cluster) order(through int, key ed25519.PrivateKey, sequence uint64, operations [][]byte) {
	req, err := request.New(c.id, key, sequence, request.Application, operations)
	require.NoError(c.t, err)
	reply, err := c.nodes[through].replica.Submit(context.Background(), req)
	require.NoError(c.t, err)
	require.Len(c.t, reply.Results, len(operations))
}
