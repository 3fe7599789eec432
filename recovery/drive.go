package recovery

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"slices"
	"time"

	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// drive does this replica's part in what the replicated state asks for: what was held of earlier
// epochs ends; evidence when it is due, dealings when a handoff is on. It looks again after every
// block that was executed, and is idempotent: what runs already is left alone.
func (n *Node) drive(ctx context.Context) {
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.changed:
		case <-again.C:
		}
		v, m := n.state.View(), n.state.Membership()
		if err := n.learn(m); err != nil {
			n.log.Error("the secrets of earlier epochs are wiped from memory, but not everywhere; it is tried again", "error", err)
			again.Reset(time.Second)
		}
		if err := n.considerCredential(m); err != nil {
			n.log.Error("changing the TLS key failed", "error", err)
		}
		live := n.live.Load()
		if live {
			if err := n.obey(v); err != nil {
				n.log.Error("approvals and revocations are carried out again", "error", err)
			}
			if err := n.considerPresence(ctx, v); err != nil {
				n.log.Error("showing the present boot failed; it is tried again", "error", err)
			}
		}
		if live || n.mayBeOpen(v) {
			if err := n.considerAttesting(ctx, v, live); err != nil {
				n.log.Error("attesting failed; it is tried again", "error", err)
			}
		}
		if live {
			n.party.Follow(ctx, v)
		} else {
			again.Reset(attestAgain) // the certificate of what was executed comes after it
		}
	}
}

// mayBeOpen says whether the round of a state that may be one of long ago can still be open: this
// replica attests while it catches up, since a busy cluster's log grows meanwhile, and the round does
// not wait. What it says in a round that is over is refused, and not held against it. It makes no
// key where the keystore was in a later epoch: the log on this disk is then an old one.
func (n *Node) mayBeOpen(v *governance.View) bool {
	return v.Phase == governance.PhaseAttesting && v.Epoch == n.keeper.Epoch() && n.cfg.Clock().UnixMilli() < v.Deadline
}

// learn ends what is held of epochs that are over.
func (n *Node) learn(m *replica.Membership) error {
	if err := n.party.Learn(m); err != nil {
		return err
	}
	header, _, ok := n.replica.Load().Anchor()
	if n.signed.Load() == uint64(m.Epoch)+1 || ok && header.Epoch == m.Epoch {
		return n.keeper.Signed(m.Epoch)
	}
	return nil
}

// patience is how long the begin of an epoch waits for this replica's own share. After that it
// follows, and votes when it has it.
const patience = 3 * time.Second

// keys gives the replica its keys for an epoch.
func (n *Node) keys(ctx context.Context, m *replica.Membership) (replica.EpochKeys, error) {
	defer n.wake()
	n.live.Store(true)
	if err := n.party.Learn(m); err != nil {
		n.log.Error("the secrets of earlier epochs are wiped from memory, but not everywhere; it is tried again", "error", err)
	}
	n.party.Await(ctx, m.Epoch, patience)
	scheme, signer, err := n.keeper.Scheme(m)
	if err != nil {
		return replica.EpochKeys{}, err
	}
	keys := replica.EpochKeys{Scheme: scheme, Signer: signer}
	if own := n.keeper.Keys(m); own != nil && signer != nil {
		keys.BlockKey, keys.MarkKey = own.EpochKey, markKey(own.EpochKey)
	}
	return keys, nil
}

// markKey authenticates the replica's mark in an epoch. It is derived from the epoch's sealed
// secret: whoever has the disk cannot make marks.
func markKey(epochKey ed25519.PrivateKey) []byte {
	h := hmac.New(sha256.New, epochKey.Seed())
	h.Write([]byte("reseal/v1/mark key\x00"))
	return h.Sum(nil)
}

// attestAgain is how long evidence may take to be judged before new evidence is submitted.
const attestAgain = time.Second

// considerAttesting submits evidence if this replica is due and was reset after it became due: it
// is the reboot that is to be shown. A round that is begun again asks for no second reboot. Live says
// that the state is the present one: an anchor of before tells less of when a machine was reset.
func (n *Node) considerAttesting(ctx context.Context, v *governance.View, live bool) error {
	me := v.Member(n.cfg.Self)
	if v.Phase != governance.PhaseAttesting || !me.Due {
		return nil
	}
	if slices.Contains(v.Attested, me.ID) && n.holdsAttested(me.NextKey) {
		return nil
	}
	judged := slices.Contains(v.Refused, me.ID)
	if n.attested == v.Round && (judged || time.Since(n.attestedAt) < attestAgain) {
		return nil
	}
	if !n.wasReset(me) {
		return nil
	}
	header, certificate, ok := n.replica.Load().Anchor()
	if !ok || header.Epoch != v.Epoch || header.Height < v.Opened {
		return nil // a fresh certificate comes with the next blocks
	}
	key, err := n.keeper.Fresh(v.Epoch, me.Awaited.Height)
	if err != nil {
		return err
	}
	evidence, err := attest.NewEvidence(rand.Reader, attest.Challenge{
		Cluster: n.cluster, Replica: n.cfg.Self, Epoch: v.Epoch, Round: v.Round, Anchor: header, Certificate: certificate,
	}, key, n.cfg.Keystore.Identity(), n.quote())
	if err != nil {
		return err
	}
	refusal, err := n.foresee(evidence, me)
	if err != nil {
		return err
	}
	if refusal != nil && !live {
		n.attested, n.attestedAt = v.Round, time.Now()
		return nil
	}
	if refusal != nil {
		n.device.early = me.Awaited.Height
		n.log.Warn("no evidence is submitted: the machine must be rebooted", "reason", refusal.Sentence)
		return nil
	}
	n.attested, n.attestedAt = v.Round, time.Now()
	n.log.Info("submitting evidence of a clean boot", "round", v.Round, "anchor", header.Height)
	return n.orderThroughOthers(ctx, &governance.Attest{Evidence: evidence})
}

// holdsAttested says whether the key that the log has as attested by this replica is one that it
// may rely on. Somebody else may have attested another in its name, and where there is no TPM, also
// have sealed it here before this process began.
func (n *Node) holdsAttested(key ed25519.PublicKey) bool {
	if n.device == nil {
		return n.keeper.Made(key)
	}
	return n.keeper.PrivateKey(key) != nil
}

// quote returns the keystore's quoting function; nil if it has no TPM.
func (n *Node) quote() attest.Quoter {
	attester, ok := n.cfg.Keystore.(keystore.Attester)
	if !ok {
		return nil
	}
	return func(nonce []byte) ([]byte, error) {
		q, err := attester.Quote(nonce)
		if err != nil {
			return nil, err
		}
		return q.MarshalBinary()
	}
}
