package recovery

import (
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery/internal/plant"
)

// credential is what the transport shows of this replica.
type credential struct {
	key    ed25519.PublicKey
	term   transport.Term
	issued time.Time
}

// renewal is how often a credential is made anew, well before it ends. The wall clock counts, by which
// the credential is dated: one that was made while the clock was wrong is made anew when it is right.
const renewal = transport.CredentialLife / 4

// wear makes a credential the present one. The reading of the monotonic clock is left out of now: by
// that one nothing is old after a jump.
func wear(key ed25519.PublicKey, term transport.Term, now time.Time) credential {
	return credential{key: key, term: term, issued: now.Round(0)}
}

// old says whether another credential is due.
func (c *credential) old(now time.Time) bool { return now.Sub(c.issued).Abs() >= renewal }

// keyToWear returns the key that the log has for this replica in this epoch. The fresh one, though
// it is attested, waits for the next epoch: others may not have executed the block that names it,
// and would hear nothing of this replica while its votes may be those that they need to get there.
// A replica that has lost the present key has no vote, and puts on the fresh one. Without either it
// is a key of this boot, which nobody takes for the replica's, but under which it may ask for the
// log.
func (n *Node) keyToWear(m *replica.Membership) (ed25519.PrivateKey, error) {
	me := m.Member(n.cfg.Self)
	for _, named := range []ed25519.PublicKey{me.EpochKey, me.NextKey} {
		if key := n.keeper.PrivateKey(named); key != nil {
			return key, nil
		}
	}
	return n.keeper.Spare()
}

// termOf is what credentials of an epoch say of it.
func termOf(m *replica.Membership) transport.Term {
	return transport.Term{Epoch: m.Epoch, Base: m.Base.Digest}
}

// certify has the identity key certify a key for the present epoch.
func (n *Node) certify(key ed25519.PrivateKey) (tls.Certificate, error) {
	return n.certifyFor(termOf(n.state.Membership()), key)
}

func (n *Node) certifyFor(term transport.Term, key ed25519.PrivateKey) (tls.Certificate, error) {
	certificate, err := transport.Credential(n.cfg.Keystore.Identity(), n.cluster, n.cfg.Self, term, key)
	if err != nil {
		return certificate, fmt.Errorf("the identity key could not certify the epoch key: %w", err)
	}
	return certificate, nil
}

// issue makes the credential that the transport shows from now on.
func (n *Node) issue(term transport.Term, key ed25519.PrivateKey) (tls.Certificate, error) {
	certificate, err := n.certifyFor(term, key)
	if err != nil {
		return certificate, err
	}
	n.worn = wear(key.Public().(ed25519.PublicKey), term, time.Now())
	return certificate, nil
}

// considerCredential wears another credential when the log has another key for this replica, when
// the present one is old, or when it counts no more and the others are in a later epoch.
func (n *Node) considerCredential(m *replica.Membership) error {
	key, err := n.keyToWear(m)
	if err != nil {
		return err
	}
	term := termOf(m)
	if others := n.words.term(m); others.Epoch > m.Epoch {
		term = others
	}
	named := m.Member(n.cfg.Self).Accepts(key.Public().(ed25519.PublicKey))
	behind := n.worn.term != term && (!named || term.Epoch > m.Epoch)
	if n.worn.key.Equal(key.Public()) && !behind && !n.worn.old(time.Now()) {
		clear(key)
		return nil
	}
	certificate, err := n.issue(term, key)
	if err == nil {
		n.transport.SetCertificate(certificate)
	}
	return err
}

// admit says whether a peer's credential counts: its key is the one that the log has for it; or it
// was made in this epoch, by a replica whose key the log has not met yet; or this replica is
// behind, and the peer has vouched for the key a moment ago. The frames of the latter two count
// when the log names the key, and they get no secret before. Whoever had the use of an identity key
// in an earlier epoch could make neither. Of epoch 0 everybody knows keys and base: a replica that
// is in it, as one with an empty store is, admits only who has vouched.
func (n *Node) admit(s transport.Sender) error {
	m := n.state.Membership()
	member := m.Member(s.ID)
	switch {
	case member == nil:
		return errors.New("it is no member")
	case m.Epoch == 0:
		if n.words.under(s) {
			return nil
		}
		return errors.New("this replica is in epoch 0, and it has not vouched for its key")
	case member.Accepts(s.EpochKey) || s.Term == termOf(m) || plant.Bug("old-credential"):
		return nil
	case s.Term.Epoch > m.Epoch && (n.words.under(s) || plant.Bug("credential-ahead")):
		return nil
	case s.Term.Epoch == m.Epoch:
		return fmt.Errorf("its credential is not for the key that the log has for it, and was made before epoch %d began", m.Epoch)
	case s.Term.Epoch > m.Epoch:
		return fmt.Errorf("its credential is of epoch %d, and not for the key that the log has for it; this replica is in epoch %d, and it has not vouched for the key", s.Term.Epoch, m.Epoch)
	}
	return fmt.Errorf("its credential is of epoch %d, which is over, and not for the key that the log has for it", s.Term.Epoch)
}

// named says whether the log has a peer's key for it.
func (n *Node) named(s transport.Sender) bool {
	member := n.state.Membership().Member(s.ID)
	return member != nil && member.Accepts(s.EpochKey)
}
