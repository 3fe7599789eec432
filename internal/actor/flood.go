package actor

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/transport"
)

// What a flood is made of, for each peer.
const (
	floodFrames = 8  // that are sent at a time
	floodCalls  = 64 // under way
)

// flooding starts what floods each peer while the conduct says so, until the network is closed.
func (n *network) flooding() {
	n.ended = make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	n.flood.Go(func() {
		<-n.ended
		cancel()
	})
	n.flood.Go(func() {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		busy := make(chan struct{}, floodCalls)
		for sequence := uint64(1); ; sequence++ {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			peers := n.peers.Load()
			if peers == nil || !n.actor.conduct.Load().Flood {
				continue
			}
			for _, p := range *peers {
				n.sayAgain(p.ID)
				select {
				case busy <- struct{}{}:
					n.flood.Go(func() {
						n.callLarge(ctx, p.ID, sequence)
						<-busy
					})
				default:
				}
			}
		}
	})
}

// Close ends the flood too.
func (n *network) Close() error {
	close(n.ended)
	n.flood.Wait()
	return n.Transport.Close()
}

// sayAgain sends a peer the last large blocks, again and again.
func (n *network) sayAgain(to bft.ReplicaID) {
	n.mu.Lock()
	large := n.large
	n.mu.Unlock()
	for i := range floodFrames {
		if len(large) > 0 {
			n.Transport.Send(to, large[i%len(large)])
		}
	}
}

// callLarge makes a call of the largest size, on a connection of its own, to hand on a request.
func (n *network) callLarge(ctx context.Context, to bft.ReplicaID, sequence uint64) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	n.mu.Lock()
	worn := n.worn
	n.mu.Unlock()
	data := make([]byte, transport.MaxCall)
	if sequence%2 == 0 {
		data = request.AppendPayload(make([]byte, 8), n.largest())
	}
	_, _ = n.Transport.CallUnder(ctx, worn, to, "reseal/hand-on", data) // whatever becomes of it
}

// largest is a request of about the largest size, by a client that nobody has seen.
func (n *network) largest() []*request.Request {
	_, client, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil
	}
	put, err := kv.Put([]byte("flood"), make([]byte, kv.MaxValue))
	if err != nil {
		return nil
	}
	r, err := request.New(n.cluster, client, 1, request.Application, [][]byte{put, put})
	if err != nil {
		return nil
	}
	return []*request.Request{r}
}

// enlarged gives a block of this replica's the largest payload.
func (n *network) enlarged(frame []byte) []byte {
	message, err := bft.ParseMessage(frame)
	block, ok := message.(*bft.Block)
	if err != nil || !ok || block.Proposer != n.self || block.EpochEnd {
		return frame
	}
	digest := block.Digest()
	n.mu.Lock()
	defer n.mu.Unlock()
	if twin, ok := n.twins[digest]; ok {
		return bft.MarshalMessage(twin)
	}
	for _, key := range n.keys {
		if !ed25519.Verify(key.Public().(ed25519.PublicKey), bft.ProposalBytes(n.cluster, digest), block.Signature) {
			continue
		}
		twin := &bft.Block{Header: block.Header, Payload: request.AppendPayload(nil, n.largest())}
		twin.Header.Payload = bft.PayloadDigest(twin.Payload)
		twin.Signature = ed25519.Sign(key, bft.ProposalBytes(n.cluster, twin.Digest()))
		if n.twins == nil || len(n.twins) >= floodFrames {
			n.twins = make(map[bft.Digest]*bft.Block)
		}
		n.twins[digest] = twin
		frame = bft.MarshalMessage(twin)
		if n.large = append(n.large, frame); len(n.large) > floodFrames {
			n.large = n.large[1:]
		}
		return frame
	}
	return frame
}
