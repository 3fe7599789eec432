package actor

import (
	"crypto/ed25519"
	"crypto/tls"

	"github.com/reseal-bft/reseal/bft"
)

// keys are those of the epochs of late: a Byzantine replica has what its process holds. A
// credential is over the key that also signs blocks.
type keys []ed25519.PrivateKey

// keptKeys is how many are kept: that of the epoch, and its neighbours'.
const keptKeys = 3

func (n *network) wear(c tls.Certificate) {
	key, ok := c.PrivateKey.(ed25519.PrivateKey)
	if !ok {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.worn = c
	if n.keys = append(n.keys, key); len(n.keys) > keptKeys {
		n.keys = n.keys[1:]
	}
}

// shown is what a peer is sent in the place of a frame: every other peer gets a block's twin while
// the conduct is to equivocate.
func (n *network) shown(to bft.ReplicaID, frame []byte) []byte {
	if n.actor.conduct.Load().Flood {
		return n.enlarged(frame)
	}
	if !n.actor.conduct.Load().Equivocate || to%2 == 0 {
		return frame
	}
	message, err := bft.ParseMessage(frame)
	if block, ok := message.(*bft.Block); err == nil && ok && block.Proposer == n.self {
		if twin := n.twin(block); twin != nil {
			return bft.MarshalMessage(twin)
		}
	}
	return frame
}

// keptTwins bounds the twins that are kept: they are for blocks that are sent again.
const keptTwins = 100

// twin signs another block for the same view; nil if its key is not known.
func (n *network) twin(b *bft.Block) *bft.Block {
	digest := b.Digest()
	n.mu.Lock()
	defer n.mu.Unlock()
	if twin, ok := n.twins[digest]; ok {
		return twin
	}
	for _, key := range n.keys {
		if !ed25519.Verify(key.Public().(ed25519.PublicKey), bft.ProposalBytes(n.cluster, digest), b.Signature) {
			continue
		}
		twin := &bft.Block{Header: b.Header, Payload: b.Payload}
		twin.Time++
		twin.Signature = ed25519.Sign(key, bft.ProposalBytes(n.cluster, twin.Digest()))
		if n.twins == nil || len(n.twins) == keptTwins {
			n.twins = make(map[bft.Digest]*bft.Block)
		}
		n.twins[digest] = twin
		return twin
	}
	return nil
}
