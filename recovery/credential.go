package recovery

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/reseal-bft/reseal/bft"
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
	if others := n.othersTerm(m); others.Epoch > m.Epoch {
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
		if n.heardUnder(s) {
			return nil
		}
		return errors.New("this replica is in epoch 0, and it has not vouched for its key")
	case member.Accepts(s.EpochKey) || s.Term == termOf(m) || plant.Bug("old-credential"):
		return nil
	case s.Term.Epoch > m.Epoch && (n.heardUnder(s) || plant.Bug("credential-ahead")):
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

// methodEpoch tells anybody the epoch that a replica is in, and the block that it builds on. A
// replica that came back late needs it before it is admitted.
const methodEpoch = "reseal/epoch"

func (n *Node) serveEpoch(context.Context, *transport.Sender, []byte) ([]byte, error) {
	term := termOf(n.state.Membership())
	return append(binary.BigEndian.AppendUint64(nil, uint64(term.Epoch)), term.Base[:]...), nil
}

func parseTerm(answer []byte) (term transport.Term, ok bool) {
	if len(answer) != 8+len(term.Base) {
		return term, false
	}
	return transport.Term{Epoch: bft.Epoch(binary.BigEndian.Uint64(answer)), Base: bft.Digest(answer[8:])}, true
}

// silence is how long no block is executed before the others are asked for their epoch: idle
// leaders make blocks more often.
const silence = time.Second

// aheadPatience is how long one is waited for: its device may be slow, and others ask it too.
const aheadPatience = 10 * time.Second

// vouchedFor is how long a peer is admitted under a key for which it has vouched, though the log
// does not name it: longer than it takes to ask again.
const vouchedFor = 2 * aheadPatience

// firstAsked is how soon a peer that did not answer is asked again by a replica in epoch 0, which
// admits nobody before.
const firstAsked = 100 * time.Millisecond

// askedRest is how long a peer is not asked again, in multiples of what the answer took: where all
// are slow, and so hear nothing of each other, asking must not make them slower.
const askedRest = 4

// listenAhead asks a peer for its epoch in epoch 0, while nothing comes in, and while the others are
// ahead. This replica may have missed that its key is over, and that theirs are; it then certifies,
// for the epoch that f + 1 others name, a key under which it may fetch the log, and takes the keys
// for which they vouch. That their identity keys do so now matters: who had them before has
// credentials for every epoch.
func (n *Node) listenAhead(ctx context.Context, peer bft.ReplicaID) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		m, asked := n.state.Membership(), time.Now()
		first := m.Epoch == 0 && !n.heardLately(peer)
		if first || m.Epoch > 0 && (time.Since(n.began)-time.Duration(n.moved.Load()) >= silence || n.othersTerm(m).Epoch > m.Epoch) {
			n.askAhead(ctx, peer)
		}
		// What others say is all that a replica hears of them when their keys are all new to it.
		if m = n.state.Membership(); n.othersTerm(m).Epoch > m.Epoch {
			n.replica.Load().Behind(peer)
		}
		pause := silence / 2
		if m.Epoch == 0 && !n.heardLately(peer) {
			pause = firstAsked
		}
		timer.Reset(max(pause, min(askedRest*time.Since(asked), aheadPatience/2)))
	}
}

func (n *Node) askAhead(ctx context.Context, peer bft.ReplicaID) {
	ctx, cancel := context.WithTimeout(ctx, aheadPatience)
	defer cancel()
	answer, key, err := n.transport.CallVouched(ctx, peer, methodEpoch, nil)
	if term, ok := parseTerm(answer); err == nil && ok {
		n.hear(peer, term, key)
		n.wake()
	}
}

// word is what a peer said of the epoch, and when, and the key for which it vouched then.
type word struct {
	term transport.Term
	key  ed25519.PublicKey
	at   time.Time
}

// hear takes note of the epoch that a peer says it is in, and of the key for which it has vouched:
// what it says last counts.
func (n *Node) hear(from bft.ReplicaID, term transport.Term, key ed25519.PublicKey) {
	n.heard.Lock()
	defer n.heard.Unlock()
	n.said[from] = word{term, key, time.Now()}
	close(n.news)
	n.news = make(chan struct{})
}

// heardUnder says whether a peer has vouched a moment ago for the key that it shows.
func (n *Node) heardUnder(s transport.Sender) bool {
	n.heard.Lock()
	defer n.heard.Unlock()
	w, ok := n.said[s.ID]
	return ok && w.key.Equal(s.EpochKey) && time.Since(w.at) < vouchedFor
}

// heardLately says whether a peer need not be asked again yet, that it may stay admitted.
func (n *Node) heardLately(peer bft.ReplicaID) bool {
	n.heard.Lock()
	defer n.heard.Unlock()
	w, ok := n.said[peer]
	return ok && time.Since(w.at) < vouchedFor/2
}

// othersTerm is the latest epoch of which f + 1 others say the same, so that one of them is right;
// the zero term when there is none.
func (n *Node) othersTerm(m *replica.Membership) (latest transport.Term) {
	n.heard.Lock()
	defer n.heard.Unlock()
	said := make(map[transport.Term]int)
	for id, w := range n.said {
		if m.Member(id) == nil {
			continue
		}
		if said[w.term]++; said[w.term] == m.Size.F+1 && w.term.Epoch > latest.Epoch {
			latest = w.term
		}
	}
	return latest
}
