package recovery

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/threshold"
)

// drive does this replica's part in what the replicated state asks for: evidence when it is due, dealings when a handoff is on. It looks
// again after every block that was executed, and is idempotent: what runs already is left alone.
func (n *Node) drive(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.changed:
		}
		if !n.live.Load() {
			continue
		}
		v := n.state.View()
		if err := n.obey(v); err != nil {
			n.log.Error("approvals and revocations are carried out again", "error", err)
		}
		if err := n.considerPresence(ctx, v); err != nil {
			n.log.Error("showing the present boot failed; it is tried again", "error", err)
		}
		if err := n.considerAttesting(ctx, v); err != nil {
			n.log.Error("attesting failed; it is tried again", "error", err)
		}
		if err := n.considerCredential(v); err != nil {
			n.log.Error("changing the TLS key failed", "error", err)
		}
		n.considerHandoff(ctx, v)
	}
}

// attestAgain is how long evidence may take to be judged before new evidence is submitted.
const attestAgain = time.Second

// considerAttesting submits evidence if this replica is due and was reset after it became due: it is the reboot that is to be shown. A round that
// is begun again asks for no second reboot.
func (n *Node) considerAttesting(ctx context.Context, v *governance.View) error {
	me := v.Member(n.cfg.Self)
	if v.Phase != governance.PhaseAttesting || !me.Due || slices.Contains(v.Attested, me.ID) {
		return nil
	}
	judged := slices.Contains(v.Refused, me.ID)
	if n.attested == v.Round && (judged || time.Since(n.attestedAt) < attestAgain) {
		return nil
	}
	if !n.wasReset(v, me) {
		return nil
	}
	header, certificate, ok := n.replica.Load().Anchor()
	if !ok || header.Epoch != v.Epoch || header.Height < v.Opened || certificate.Kind != bft.Notarize {
		return nil // a fresh notarization comes with the next blocks
	}
	key, err := n.sealFreshKey()
	if err != nil {
		return err
	}
	evidence, err := attest.NewEvidence(rand.Reader, attest.Challenge{
		Cluster: n.cluster, Replica: n.cfg.Self, Epoch: v.Epoch, Round: v.Round, Anchor: header, Certificate: certificate,
	}, key.Public().(ed25519.PublicKey), n.cfg.Keystore.Identity(), n.quote())
	if err != nil {
		return err
	}
	refusal, err := n.foresee(evidence, me)
	if err != nil {
		return err
	}
	if refusal != nil {
		n.log.Warn("no evidence is submitted: the machine must be rebooted", "reason", refusal.Sentence)
		return nil
	}
	n.attested, n.attestedAt = v.Round, time.Now()
	n.log.Info("submitting evidence of a clean boot", "round", v.Round, "anchor", header.Height)
	return n.orderThroughOthers(ctx, &governance.Attest{Evidence: evidence})
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

// considerCredential puts on the key that the log has for this replica in this epoch. The fresh one, though it is attested, waits for the next epoch: others may
// not have executed the block that names it, and would hear nothing of this replica while its votes may be those that they need to get there. A replica that has
// lost the present key has no vote, and puts on the fresh one.
func (n *Node) considerCredential(v *governance.View) error {
	me := v.Member(n.cfg.Self)
	n.mu.Lock()
	key := n.keyFor(me.EpochKey)
	if key == nil {
		key = n.keyFor(me.NextKey)
	}
	n.mu.Unlock()
	if key == nil {
		return nil
	}
	return n.wear(key)
}

// considerHandoff starts this replica's part in the handoff that the state asks for, and ends one that is void.
func (n *Node) considerHandoff(ctx context.Context, v *governance.View) {
	n.mu.Lock()
	defer n.mu.Unlock()
	wanted := n.wantedHandoff(v)
	if h := n.handoff; h != nil {
		if wanted != nil && h.epoch == wanted.epoch && h.round == wanted.round {
			return // it runs already, or awaits its epoch
		}
		n.stopping()
		n.handoff = nil
		n.working.Go(h.discard)
	}
	if wanted == nil {
		return
	}
	n.handoff = wanted
	ctx, n.stopping = context.WithCancel(ctx)
	n.working.Go(func() {
		defer close(wanted.finished)
		n.runHandoff(ctx, wanted, v)
	})
}

// wantedHandoff returns this replica's part in the running handoff, or in the last one if that has not given it its share yet; nil if there is
// nothing to do. The caller holds the lock.
func (n *Node) wantedHandoff(v *governance.View) *handoff {
	me := v.Member(n.cfg.Self)
	var h *handoff
	switch {
	case (v.Phase == governance.PhaseDealing || v.Phase == governance.PhaseReady) && slices.Contains(v.Eligible, me.ID):
		key := me.EpochKey
		if me.NextKey != nil {
			key = me.NextKey
		}
		h = n.newHandoff(v, v.Epoch, v.Round, key)
	case v.Epoch > 0 && me.HoldsShare && n.epoch != v.Epoch:
		h = n.newHandoff(v, v.LastHandoff.Epoch, v.LastHandoff.Round, me.EpochKey)
		h.late.Store(true)
	default:
		return nil
	}
	if n.epoch == h.epoch {
		h.secret, h.sharing = n.secret, n.sharing
	}
	return h
}

// keyFor returns the private part of an epoch key that this replica has.
func (n *Node) keyFor(public ed25519.PublicKey) ed25519.PrivateKey {
	if n.nextKey != nil && n.nextKey.Public().(ed25519.PublicKey).Equal(public) {
		return n.nextKey
	}
	if n.secret != nil && n.secret.epochKey.Public().(ed25519.PublicKey).Equal(public) {
		return n.secret.epochKey
	}
	return nil
}

func (n *Node) newHandoff(v *governance.View, epoch bft.Epoch, round governance.Round, key ed25519.PublicKey) *handoff {
	private := n.keyFor(key)
	return &handoff{
		node: n, epoch: epoch, round: round, epochKey: private,
		credential: sync.OnceValues(func() (tls.Certificate, error) { return n.certify(private) }),
		params:     threshold.Params{N: v.N, T: v.Quorum, F: v.F},
		dealt:      make(chan struct{}), completed: make(chan struct{}), finished: make(chan struct{}),
		acks: make(map[bft.ReplicaID][]byte), held: make(map[bft.Digest]heldDealing),
	}
}

// runHandoff runs a handoff to its end.
func (n *Node) runHandoff(ctx context.Context, h *handoff, v *governance.View) {
	err := n.takePart(ctx, h, v)
	switch {
	case err != nil && ctx.Err() == nil:
		n.log.Error("the handoff failed; this replica gets its share when it can be completed from the others'", "round", h.round, "error", err)
	case err == nil && h.late.Load():
		n.replica.Load().Rekey() // the epoch began without this replica
	}
}

func (n *Node) takePart(ctx context.Context, h *handoff, v *governance.View) error {
	if h.epochKey == nil {
		return errors.New("this replica does not have the epoch key that the log has for it: it was restarted after it had attested")
	}
	dealings, err := n.awaitDealings(ctx, h, v)
	if err != nil {
		return err
	}
	return until(ctx, func() error { return h.complete(ctx, dealings) })
}

// awaitDealings returns the dealings that the log chose for a handoff. Until it has chosen, this replica deals and receives.
func (n *Node) awaitDealings(ctx context.Context, h *handoff, v *governance.View) ([]governance.ChosenDealing, error) {
	switch {
	case h.late.Load():
		return v.LastHandoff.Dealings, nil
	case v.Phase == governance.PhaseReady:
		return v.Dealings, nil
	}
	var dealers []bft.ReplicaID
	for _, m := range v.Members {
		if m.HoldsShare {
			dealers = append(dealers, m.ID)
		}
	}
	return h.run(ctx, dealers, func(ctx context.Context) ([]governance.ChosenDealing, error) { return n.chosen(ctx, h) })
}

// chosen waits until the log has chosen the dealings of a handoff.
func (n *Node) chosen(ctx context.Context, h *handoff) ([]governance.ChosenDealing, error) {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		v := n.state.View()
		switch {
		case v.Epoch == h.epoch && v.Round == h.round && v.Phase == governance.PhaseReady:
			return v.Dealings, nil
		case v.Epoch == h.epoch+1 && v.LastHandoff.Round == h.round:
			return v.LastHandoff.Dealings, nil
		case v.Epoch != h.epoch || v.Round != h.round:
			return nil, fmt.Errorf("round %d is over", h.round)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
