package recovery

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery/internal/plant"
)

// credential is what the transport shows of this replica.
type credential struct {
	key    ed25519.PublicKey
	epoch  bft.Epoch
	issued time.Time
}

// renewal is how often a credential is made anew, well before it ends. Replicas look at the epoch; the time is for clients.
const renewal = transport.CredentialLife / 4

// keyToWear returns the key that the log has for this replica in this epoch. The fresh one, though it is attested, waits for the next epoch: others may
// not have executed the block that names it, and would hear nothing of this replica while its votes may be those that they need to get there. A replica that has
// lost the present key has no vote, and puts on the fresh one. Without either it is a key of this boot, which nobody takes for the replica's, but under which it may
// ask for the log.
func (n *Node) keyToWear(m *replica.Membership) (ed25519.PrivateKey, error) {
	me := m.Member(n.cfg.Self)
	for _, named := range []ed25519.PublicKey{me.EpochKey, me.NextKey} {
		if key := n.keeper.PrivateKey(named); key != nil {
			return key, nil
		}
	}
	return n.keeper.Spare()
}

// certify has the identity key certify a key for an epoch.
func (n *Node) certify(epoch bft.Epoch, key ed25519.PrivateKey) (tls.Certificate, error) {
	certificate, err := transport.Credential(n.cfg.Keystore.Identity(), n.cluster, n.cfg.Self, epoch, key)
	if err != nil {
		return certificate, fmt.Errorf("the identity key could not certify the epoch key: %w", err)
	}
	return certificate, nil
}

// issue makes the credential that the transport shows from now on.
func (n *Node) issue(epoch bft.Epoch, key ed25519.PrivateKey) (tls.Certificate, error) {
	certificate, err := n.certify(epoch, key)
	if err != nil {
		return certificate, err
	}
	n.worn = credential{key: key.Public().(ed25519.PublicKey), epoch: epoch, issued: time.Now()}
	return certificate, nil
}

// considerCredential wears another credential when the log has another key for this replica, when the present one is old, or when it counts no more
// and the others are in a later epoch.
func (n *Node) considerCredential(m *replica.Membership) error {
	key, err := n.keyToWear(m)
	if err != nil {
		return err
	}
	epoch := max(m.Epoch, n.othersEpoch(m))
	named := m.Member(n.cfg.Self).Accepts(key.Public().(ed25519.PublicKey))
	behind := n.worn.epoch < epoch && (!named || epoch > m.Epoch)
	if n.worn.key.Equal(key.Public()) && !behind && time.Since(n.worn.issued) < renewal {
		clear(key)
		return nil
	}
	certificate, err := n.issue(epoch, key)
	if err == nil {
		n.transport.SetCertificate(certificate)
	}
	return err
}

// admit says whether a peer's credential counts: its key is the one that the log has for it, or it is not of an epoch that is over. The latter
// is a replica that the log has not met yet, or that knows more than this one; its frames count when the log names its key, and it gets no secret before.
func (n *Node) admit(s transport.Sender) error {
	m := n.state.Membership()
	member := m.Member(s.ID)
	if member != nil && (member.Accepts(s.EpochKey) || s.Epoch >= m.Epoch || plant.Bug("old-credential")) {
		return nil
	}
	return fmt.Errorf("its credential is of epoch %d, which is over, and not for the key that the log has for it", s.Epoch)
}

// named says whether the log has a peer's key for it.
func (n *Node) named(s transport.Sender) bool {
	member := n.state.Membership().Member(s.ID)
	return member != nil && member.Accepts(s.EpochKey)
}

// methodEpoch tells anybody the epoch that a replica is in. A replica that came back late needs it before it is admitted.
const methodEpoch = "reseal/epoch"

func (n *Node) serveEpoch(context.Context, *transport.Sender, []byte) ([]byte, error) {
	return binary.BigEndian.AppendUint64(nil, uint64(n.state.Membership().Epoch)), nil
}

// silence is how long no block is executed before the others are asked for their epoch: idle leaders make blocks more often.
const silence = time.Second

// listenAhead asks the others for their epoch while nothing comes in. This replica may have missed that its key is over; it then certifies, for the epoch that f + 1
// others name, a key under which it may fetch the log.
func (n *Node) listenAhead(ctx context.Context) {
	ticker := time.NewTicker(silence / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if time.Since(n.began)-time.Duration(n.moved.Load()) < silence {
			continue
		}
		var asked sync.WaitGroup
		for _, member := range n.state.Membership().Members {
			if member.ID == n.cfg.Self {
				continue
			}
			asked.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, silence)
				defer cancel()
				answer, err := n.transport.CallUnder(ctx, tls.Certificate{}, member.ID, methodEpoch, nil) // its credential may count no more
				if err == nil && len(answer) == 8 {
					n.hear(member.ID, bft.Epoch(binary.BigEndian.Uint64(answer)))
				}
			})
		}
		asked.Wait()
		n.wake()
	}
}

// hear takes note of the epoch that a peer says it is in.
func (n *Node) hear(from bft.ReplicaID, epoch bft.Epoch) {
	n.heard.Lock()
	defer n.heard.Unlock()
	n.ahead[from] = max(n.ahead[from], epoch)
}

// othersEpoch is an epoch that f + 1 others say has begun, so that one of them is right.
func (n *Node) othersEpoch(m *replica.Membership) bft.Epoch {
	n.heard.Lock()
	defer n.heard.Unlock()
	var epochs []bft.Epoch
	for id, epoch := range n.ahead {
		if id != n.cfg.Self && m.Member(id) != nil {
			epochs = append(epochs, epoch)
		}
	}
	slices.Sort(epochs)
	if len(epochs) <= m.Size.F {
		return 0
	}
	return epochs[len(epochs)-1-m.Size.F]
}
