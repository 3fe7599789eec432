package handoff

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/threshold"
)

// attempt is one replica's part in one attempt to hand the group key to the next epoch: it deals
// its share, keeps its parts of the others' dealings, collects acknowledgements of its own, and in
// the end combines the parts of the dealings that the log chose.
type attempt struct {
	p        *Party
	from, to bft.Epoch
	round    governance.Round
	params   threshold.Params
	epochKey ed25519.PublicKey // this replica's in the next epoch, as the log has it
	stop     context.CancelFunc

	mu         sync.Mutex
	dealt      chan struct{} // closed when dealing is set
	dealing    *threshold.Dealing
	over       bool             // nothing is dealt any more
	credential *tls.Certificate // of epochKey, made when it is needed
	ackMessage []byte
	acks       map[bft.ReplicaID][]byte
	forged     map[bft.ReplicaID]bool // who sent a bad acknowledgement of the dealing: it is not heard again
	sent       bool

	completed chan struct{} // closed when the keeper has the share
}

const dealingContextDomain = "reseal/v1/dealing-context\x00"

// dealingContext is bound into a commitment's digest: no dealing counts in another round, or as
// another dealer's.
func dealingContext(cluster bft.ClusterID, epoch bft.Epoch, round governance.Round, dealer bft.ReplicaID) []byte {
	b := append([]byte(dealingContextDomain), cluster[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(epoch))
	b = binary.BigEndian.AppendUint64(b, uint64(round))
	return binary.BigEndian.AppendUint16(b, uint16(dealer))
}

// retry bounds the pause between two tries: a peer may not have seen yet what this replica has
// seen, and one that never answers well is not to cost much. Tries end with the round, or, for a
// replica that is late, with the epoch.
const (
	retryFirst = 10 * time.Millisecond
	retryMost  = 2 * time.Second
)

// until tries until it succeeds or the context ends.
func until(ctx context.Context, try func() error) error {
	for pause := retryFirst; ; pause = min(2*pause, retryMost) {
		err := try()
		if err == nil {
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

// saying has an error said, unless it is the one that was said last: what is tried again and again
// fails for the same reason.
func saying(ctx context.Context, try func() error, say func(error)) func() error {
	said := ""
	return func() error {
		err := try()
		if err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			say(err)
		}
		return err
	}
}

// run takes part in the handoff to its end.
func (a *attempt) run(ctx context.Context, v *governance.View) {
	log, keeper := a.p.cfg.Log, a.p.cfg.Keeper
	err := until(ctx, saying(ctx, func() error { return keeper.Prepare(a.to, a.round, a.epochKey) }, func(err error) {
		log.Error("the handoff cannot begin here", "round", a.round, "error", err)
	}))
	if err != nil {
		return
	}
	chosen, err := a.takePart(ctx, v)
	if err == nil {
		err = until(ctx, saying(ctx, func() error { return a.complete(ctx, chosen) }, func(err error) {
			log.Warn("the share is not complete yet", "epoch", a.to, "error", err)
		}))
	}
	if err != nil {
		if ctx.Err() == nil {
			log.Error("the handoff failed; this replica gets its share when it can be completed from the others'", "round", a.round, "error", err)
		}
		return
	}
	log.Info("the share of the next epoch is complete and sealed", "epoch", a.to)
	close(a.completed)
	if a.p.hasBegun(a.to) {
		a.p.cfg.Completed()
	}
}

// takePart deals and receives until the log has chosen a quorum of dealings, and returns them.
func (a *attempt) takePart(ctx context.Context, v *governance.View) ([]governance.ChosenDealing, error) {
	switch {
	case v.Epoch == a.to:
		return v.LastHandoff.Dealings, nil
	case v.Phase == governance.PhaseReady:
		return v.Dealings, nil
	}
	working, stop := context.WithCancel(ctx)
	defer stop()
	group, working := errgroup.WithContext(working)
	group.Go(func() error { return a.deal() })
	for _, m := range v.Members {
		if !m.HoldsShare {
			continue
		}
		group.Go(func() error {
			err := until(working, func() error { return a.receive(working, m.ID) })
			if err != nil && ctx.Err() == nil && working.Err() == nil {
				a.p.cfg.Log.Warn("a dealing did not arrive", "dealer", m.ID, "error", err)
			}
			return nil
		})
	}
	chosen, err := a.chosen(ctx)
	stop()
	if failed := group.Wait(); err == nil && failed != nil {
		a.p.cfg.Log.Error("this replica deals nothing", "round", a.round, "error", failed)
	}
	return chosen, err
}

// chosen waits until the log has chosen the dealings.
func (a *attempt) chosen(ctx context.Context) ([]governance.ChosenDealing, error) {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		v := a.p.cfg.State.View()
		switch {
		case v.Epoch == a.from && v.Round == a.round && v.Phase == governance.PhaseReady:
			return v.Dealings, nil
		case v.Epoch == a.to && v.LastHandoff.Round == a.round:
			return v.LastHandoff.Dealings, nil
		case v.Epoch != a.from || v.Round != a.round:
			return nil, fmt.Errorf("round %d is over", a.round)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// deal makes this replica's dealing, if it has something to deal: its share, or in epoch 0 a random
// secret; and offers it.
func (a *attempt) deal() error {
	share, may := a.p.cfg.Keeper.dealt(a.from)
	if !may {
		return nil
	}
	var dealing *threshold.Dealing
	var err error
	about := dealingContext(a.p.cfg.Cluster, a.from, a.round, a.p.cfg.Self)
	if a.from == 0 {
		dealing, err = threshold.Deal(rand.Reader, a.params, about)
	} else {
		dealing, err = threshold.Redeal(rand.Reader, a.params, about, share)
	}
	if err != nil {
		return fmt.Errorf("deal: %w", err)
	}
	statement, err := a.statement(a.p.cfg.Self, dealing.Commitment())
	if err != nil {
		dealing.Wipe()
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		dealing.Wipe()
		return nil
	}
	a.dealing, a.ackMessage = dealing, statement
	close(a.dealt)
	return nil
}

// endDealing wipes what this replica dealt: the log has chosen, or the attempt is void. Who missed
// its part completes it from the receivers'.
func (a *attempt) endDealing() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	if a.dealing != nil {
		a.dealing.Wipe()
		a.dealing = nil
	}
	clear(a.acks)
}

// statement is what receivers of a dealing sign.
func (a *attempt) statement(dealer bft.ReplicaID, c *threshold.Commitment) ([]byte, error) {
	key, err := c.PublicKey()
	if err != nil {
		return nil, err
	}
	return governance.DealingStatement(a.p.cfg.Cluster, a.from, a.round, dealer, c.Digest(), [governance.PublicKeySize]byte(key.Bytes())), nil
}

// receive fetches this replica's part of a dealer's dealing, verifies it, stores it, and
// acknowledges it. A part without its column is none: whoever acknowledges promises to help those
// that the dealer leaves out.
func (a *attempt) receive(ctx context.Context, dealer bft.ReplicaID) error {
	commitment, part, err := a.fetchPart(ctx, dealer)
	if err != nil {
		return err
	}
	err = a.check(dealer, commitment)
	if err == nil {
		err = commitment.VerifyPart(part)
	}
	if err != nil {
		part.Wipe()
		return err
	}
	if err := a.p.cfg.Keeper.keep(&held{to: a.to, round: a.round, commitment: commitment, part: part}); err != nil {
		return err
	}
	return a.acknowledge(ctx, dealer, commitment)
}

// check verifies that a commitment is the dealer's for this round, and that it deals what it should.
func (a *attempt) check(dealer bft.ReplicaID, c *threshold.Commitment) error {
	if string(c.Context()) != string(dealingContext(a.p.cfg.Cluster, a.from, a.round, dealer)) || c.Params() != a.params {
		return errors.New("the commitment is of another round, dealer or size")
	}
	if a.from > 0 {
		if sharing := a.p.cfg.Keeper.provenSharing(a.from); sharing != nil {
			return c.VerifyRedeal(sharing, int(dealer))
		}
	}
	return c.Verify()
}

// acknowledge signs a dealing with this epoch's share and sends the signature to the dealer.
// Receivers without a share of this epoch only receive.
func (a *attempt) acknowledge(ctx context.Context, dealer bft.ReplicaID, c *threshold.Commitment) error {
	m := a.p.cfg.State.Membership()
	if m.Epoch != a.from {
		return errEpochOver
	}
	_, signer, err := a.p.cfg.Keeper.Scheme(m)
	if err != nil || signer == nil {
		return err
	}
	statement, err := a.statement(dealer, c)
	if err != nil {
		return err
	}
	ack, err := signer.Sign(statement)
	if err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	if dealer == a.p.cfg.Self {
		return a.acknowledged(dealer, ack)
	}
	_, err = a.p.call(ctx, dealer, methodAcknowledge, a.name(ack...))
	return err
}

// acknowledged takes an acknowledgement of this replica's dealing. With a quorum of them the
// dealing is certified and goes into the log.
func (a *attempt) acknowledged(from bft.ReplicaID, ack []byte) error {
	m := a.p.cfg.State.Membership()
	if m.Epoch != a.from {
		return errEpochOver
	}
	scheme, _, err := a.p.cfg.Keeper.Scheme(m)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dealing == nil || a.sent || a.forged[from] {
		return nil
	}
	a.acks[from] = ack
	if len(a.acks) < a.params.T {
		return nil
	}
	certificate, bad, err := scheme.Combine(a.ackMessage, a.acks)
	for _, id := range bad {
		a.p.cfg.Log.Warn("bad acknowledgement of a dealing", "replica", id)
		delete(a.acks, id)
		a.forged[id] = true
	}
	if err != nil {
		return nil // others will acknowledge
	}
	key, err := a.dealing.Commitment().PublicKey()
	if err != nil {
		return err
	}
	a.sent = true
	return a.p.cfg.Submit(&governance.Dealing{
		Epoch: a.from, Round: a.round, Dealer: a.p.cfg.Self,
		Commitment: a.dealing.Commitment().Digest(), PublicKey: [governance.PublicKeySize]byte(key.Bytes()), Certificate: certificate,
	})
}
