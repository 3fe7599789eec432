package recovery

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/scheme"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/threshold"
)

// patience is how long the begin of an epoch waits for this replica's own share. After that it follows, and votes when it has it.
const patience = 3 * time.Second

// keys gives the replica its keys for an epoch. It makes the share of a completed handoff the present one: the keystore advances, and the share of the epoch
// before can never be unsealed again.
func (n *Node) keys(ctx context.Context, m *replica.Membership) (replica.EpochKeys, error) {
	defer n.wake()
	n.live.Store(true)
	if err := n.adopt(ctx, m); err != nil {
		return replica.EpochKeys{}, err
	}
	n.mu.Lock()
	epoch, secret, sharing := n.epoch, n.secret, n.sharing
	n.mu.Unlock()
	if epoch != m.Epoch || secret == nil || !secret.epochKey.Public().(ed25519.PublicKey).Equal(m.Member(n.cfg.Self).EpochKey) {
		verifier, err := n.verifier(m)
		return replica.EpochKeys{Scheme: verifier}, err
	}
	s, signer, err := n.schemeOf(m, secret, sharing)
	return replica.EpochKeys{Scheme: s, Signer: signer, BlockKey: secret.epochKey, MarkKey: markKey(secret.epochKey)}, err
}

// markKey authenticates the replica's mark in an epoch. It is derived from the epoch's sealed secret: whoever has the disk cannot make marks.
func markKey(epochKey ed25519.PrivateKey) []byte {
	h := hmac.New(sha256.New, epochKey.Seed())
	h.Write([]byte("reseal/v1/mark key\x00"))
	return h.Sum(nil)
}

// adopt waits for the handoff that leads to an epoch, if this replica takes part in one, and moves the keystore on.
func (n *Node) adopt(ctx context.Context, m *replica.Membership) error {
	n.mu.Lock()
	h, present := n.handoff, n.epoch
	n.mu.Unlock()
	if present == m.Epoch || h == nil || h.epoch+1 != m.Epoch {
		return nil
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-h.completed:
	case <-timer.C:
		h.late.Store(true)
	case <-ctx.Done():
		return nil
	}
	select {
	case <-h.completed:
		return n.advance(h)
	default:
		return nil
	}
}

// advance puts a completed handoff into force.
func (n *Node) advance(h *handoff) error {
	next := h.take()
	if next == nil {
		return nil // another handoff took its place
	}
	if err := n.cfg.Keystore.Advance(uint64(next.epoch)); err != nil {
		return fmt.Errorf("keystore: advance to epoch %d: %w", next.epoch, err)
	}
	n.mu.Lock()
	if n.secret != nil {
		n.secret.retire()
	}
	for _, d := range n.held {
		d.part.Wipe()
	}
	n.epoch, n.secret, n.sharing, n.held = next.epoch, next.secret, next.sharing, next.held
	n.nextKey, n.sealedKey, n.handoff = nil, nil, nil
	n.mu.Unlock()
	n.rebooted.Store(false)
	h.wipe(next.held)
	if err := n.forget(h.epoch); err != nil {
		return err
	}
	n.log.Info("the share of the new epoch is sealed, the old one is erased", "epoch", next.epoch)
	return n.wear(next.secret.epochKey)
}

// wear makes the transport use a key, if it does not yet.
func (n *Node) wear(key ed25519.PrivateKey) error {
	public := key.Public().(ed25519.PublicKey)
	n.mu.Lock()
	same := public.Equal(n.wearing)
	n.mu.Unlock()
	if same {
		return nil
	}
	credential, err := n.certify(key)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.wearing = public
	n.mu.Unlock()
	n.transport.SetCertificate(credential)
	return nil
}

// certify makes the TLS credential of an epoch key.
func (n *Node) certify(key ed25519.PrivateKey) (tls.Certificate, error) {
	credential, err := transport.Credential(n.cfg.Keystore.Identity(), n.cluster, n.cfg.Self, key, credentialValidity)
	if err != nil {
		return credential, fmt.Errorf("the identity key could not certify the epoch key: %w", err)
	}
	return credential, nil
}

// prepare seals what a handoff gave this replica for the next epoch. Nothing is in force yet: until the keystore advances, a crash leaves
// the old epoch.
func (n *Node) prepare(h *handoff, sharing *threshold.Sharing, share *threshold.Share, held map[bft.Digest]heldDealing) (*nextEpoch, error) {
	secret, err := newSecret(rand.Reader, share, h.epochKey, sharing.GroupKey().Bytes())
	if err != nil {
		return nil, err
	}
	next := &nextEpoch{epoch: h.epoch + 1, secret: secret, sharing: sharing, held: held}
	for _, d := range held {
		if err := n.storePart(&secret.vaultKey, next.epoch, d); err != nil {
			return nil, err
		}
	}
	if err := n.storeSharing(next.epoch, sharing); err != nil {
		return nil, err
	}
	if err := secret.seal(n.cfg.Keystore, next.epoch); err != nil {
		return nil, fmt.Errorf("keystore: seal the share of epoch %d: %w", next.epoch, err)
	}
	return next, nil
}

// scheme returns what makes and checks certificates of the present epoch with the given secret.
func (n *Node) scheme(epoch bft.Epoch, secret *epochSecret, sharing *threshold.Sharing) (bft.Scheme, bft.Signer, error) {
	m := n.state.Membership()
	if m.Epoch != epoch {
		return nil, nil, errors.New("the epoch is over")
	}
	return n.schemeOf(m, secret, sharing)
}

func (n *Node) schemeOf(m *replica.Membership, secret *epochSecret, sharing *threshold.Sharing) (bft.Scheme, bft.Signer, error) {
	switch {
	case m.Epoch == 0 && secret != nil:
		s := scheme.List(memberKeys(m), m.Size.Quorum(), secret.epochKey)
		return s, s, nil
	case m.Epoch > 0 && secret != nil && secret.share != nil && sharing != nil:
		s := scheme.Threshold(sharing, secret.share)
		return s, s, nil
	}
	s, err := n.verifier(m)
	return s, nil, err
}

func memberKeys(m *replica.Membership) map[bft.ReplicaID]ed25519.PublicKey {
	keys := make(map[bft.ReplicaID]ed25519.PublicKey, len(m.Members))
	for _, member := range m.Members {
		keys[member.ID] = member.EpochKey
	}
	return keys
}

// verifier verifies the certificates of an epoch: in epoch 0 lists of signatures, from then on under the group key, which never changes.
func (n *Node) verifier(m *replica.Membership) (bft.Scheme, error) {
	if m.Epoch == 0 {
		return scheme.List(memberKeys(m), m.Size.Quorum(), nil), nil
	}
	if err := n.checkGroupKey(m.GroupKey); err != nil {
		return nil, err
	}
	key, err := threshold.ParsePublicKey(m.GroupKey)
	if err != nil {
		return nil, err
	}
	return scheme.Verifier(key), nil
}

// verifierOf verifies the certificates by which dealings of an epoch were accepted: of this one, or of the one before.
func (n *Node) verifierOf(epoch bft.Epoch) (bft.Scheme, error) {
	m := n.state.Membership()
	if epoch > 0 || m.Epoch == 0 {
		return n.verifier(m)
	}
	founding, err := n.cfg.Genesis.Membership()
	if err != nil {
		return nil, err
	}
	return n.verifier(founding)
}

// checkGroupKey compares a group key that came from the disk or from others with the one that is sealed in the keystore.
func (n *Node) checkGroupKey(key []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.secret == nil || n.secret.groupKey == [32]byte{} || n.secret.groupKey == sha256.Sum256(key) {
		return nil
	}
	return errors.New("the state names another group key than the one sealed in the keystore: it was tampered with, or is another cluster's")
}
