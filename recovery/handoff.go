package recovery

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/threshold"
)

// handoff is one replica's part in one attempt to hand the group key to the next epoch: it deals its share, keeps its parts of the others'
// dealings, collects acknowledgements of its own, and in the end combines the parts of the dealings that the log chose.
type handoff struct {
	node  *Node
	epoch bft.Epoch
	round governance.Round
	// secret and sharing are those of the epoch that ends; sharing is nil in epoch 0.
	secret  *epochSecret
	sharing *threshold.Sharing
	params  threshold.Params
	// epochKey is the one that this replica has in the next epoch; credential certifies it, for the calls that get this replica its parts.
	epochKey   ed25519.PrivateKey
	credential func() (tls.Certificate, error)
	// late says that the next epoch has begun without this replica's share.
	late atomic.Bool

	mu         sync.Mutex
	dealt      chan struct{} // closed when dealing is set
	dealing    *threshold.Dealing
	ackMessage []byte
	acks       map[bft.ReplicaID][]byte
	sent       bool
	held       map[bft.Digest]heldDealing // by digest of the commitment

	completed chan struct{} // closed when next is set
	next      *nextEpoch
	taken     bool          // next is in force: not this handoff's to wipe any more
	finished  chan struct{} // closed when nothing works on this handoff any more
}

// heldDealing is another replica's dealing, verified, with this replica's part of it.
type heldDealing struct {
	commitment *threshold.Commitment
	part       *threshold.Part
}

// verify checks the part, which came from its dealer, or was completed from points and has no column then.
func (d heldDealing) verify() error {
	if d.part.HasColumn() {
		return d.commitment.VerifyPart(d.part)
	}
	return d.commitment.VerifyCompleted(d.part)
}

// nextEpoch is what a completed handoff gives a replica.
type nextEpoch struct {
	epoch   bft.Epoch
	secret  *epochSecret
	sharing *threshold.Sharing
	held    map[bft.Digest]heldDealing
}

const dealingContextDomain = "reseal/v1/dealing-context\x00"

// dealingContext is bound into a commitment's digest: no dealing counts in another round, or as another dealer's.
func dealingContext(cluster bft.ClusterID, epoch bft.Epoch, round governance.Round, dealer bft.ReplicaID) []byte {
	b := append([]byte(dealingContextDomain), cluster[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(epoch))
	b = binary.BigEndian.AppendUint64(b, uint64(round))
	return binary.BigEndian.AppendUint16(b, uint16(dealer))
}

// retry bounds the pause between two tries to reach a peer: it may not have seen yet what this replica has seen.
const (
	retryFirst = 10 * time.Millisecond
	retryMost  = 250 * time.Millisecond
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

// run takes part in the handoff until the log has chosen a quorum of dealings or the context ends, and returns them.
func (h *handoff) run(ctx context.Context, dealers []bft.ReplicaID, chosen func(context.Context) ([]governance.ChosenDealing, error)) ([]governance.ChosenDealing, error) {
	receiving, stop := context.WithCancel(ctx)
	defer stop()
	group, receiving := errgroup.WithContext(receiving)
	if h.mayDeal() {
		group.Go(func() error { return h.deal(receiving) })
	}
	for _, dealer := range dealers {
		group.Go(func() error {
			err := until(receiving, func() error { return h.receive(receiving, dealer) })
			if err != nil && ctx.Err() == nil && receiving.Err() == nil {
				h.node.log.Warn("a dealing did not arrive", "dealer", dealer, "error", err)
			}
			return nil
		})
	}
	dealings, err := chosen(ctx)
	stop()
	if failed := group.Wait(); err == nil {
		err = failed
	}
	return dealings, err
}

// mayDeal says whether this replica has something to deal: its share, or in epoch 0 a random secret.
func (h *handoff) mayDeal() bool {
	return h.secret != nil && (h.epoch == 0 || h.secret.share != nil)
}

// deal makes this replica's dealing and offers it.
func (h *handoff) deal(ctx context.Context) error {
	var dealing *threshold.Dealing
	var err error
	about := dealingContext(h.node.cluster, h.epoch, h.round, h.node.cfg.Self)
	if h.epoch == 0 {
		dealing, err = threshold.Deal(rand.Reader, h.params, about)
	} else {
		dealing, err = threshold.Redeal(rand.Reader, h.params, about, h.secret.share)
	}
	if err != nil {
		return fmt.Errorf("deal: %w", err)
	}
	statement, err := h.statement(h.node.cfg.Self, dealing.Commitment())
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.dealing, h.ackMessage = dealing, statement
	h.mu.Unlock()
	close(h.dealt)
	return nil
}

// statement is what receivers of a dealing sign.
func (h *handoff) statement(dealer bft.ReplicaID, c *threshold.Commitment) ([]byte, error) {
	key, err := c.PublicKey()
	if err != nil {
		return nil, err
	}
	return governance.DealingStatement(h.node.cluster, h.epoch, h.round, dealer, c.Digest(), [governance.PublicKeySize]byte(key.Bytes())), nil
}

// receive fetches this replica's part of a dealer's dealing, verifies it, stores it, and acknowledges it.
func (h *handoff) receive(ctx context.Context, dealer bft.ReplicaID) error {
	commitment, part, err := h.node.fetchPart(ctx, h, dealer)
	if err != nil {
		return err
	}
	err = h.check(dealer, commitment)
	if err == nil {
		err = commitment.VerifyPart(part)
	}
	if err == nil {
		err = h.keep(heldDealing{commitment, part})
	}
	if err != nil {
		part.Wipe()
		return err
	}
	return h.acknowledge(ctx, dealer, commitment)
}

// check verifies that a commitment is the dealer's for this round, and that it deals what it should.
func (h *handoff) check(dealer bft.ReplicaID, c *threshold.Commitment) error {
	if string(c.Context()) != string(dealingContext(h.node.cluster, h.epoch, h.round, dealer)) || c.Params() != h.params {
		return errors.New("the commitment is of another round, dealer or size")
	}
	if h.epoch > 0 && h.sharing != nil {
		return c.VerifyRedeal(h.sharing, int(dealer))
	}
	return c.Verify()
}

// keep holds a verified dealing in memory and, encrypted, on disk: an acknowledgement promises that it is not lost by a restart. It is kept by the
// digest of its commitment: a dealer that restarts may deal again, and what was acknowledged before must not be replaced.
func (h *handoff) keep(d heldDealing) error {
	if h.secret != nil {
		if err := h.node.storePart(&h.secret.vaultKey, h.epoch, d); err != nil {
			return err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hold(d)
	return nil
}

// hold takes a dealing into memory, where wipe and discard find it. The caller holds the lock.
func (h *handoff) hold(d heldDealing) {
	digest := d.commitment.Digest()
	if before, ok := h.held[digest]; ok && before.part != d.part {
		before.part.Wipe()
	}
	h.held[digest] = d
}

// acknowledge signs a dealing with this epoch's share and sends the signature to the dealer. Receivers without a share of this epoch only
// receive.
func (h *handoff) acknowledge(ctx context.Context, dealer bft.ReplicaID, c *threshold.Commitment) error {
	_, signer, err := h.node.scheme(h.epoch, h.secret, h.sharing)
	if err != nil || signer == nil {
		return err
	}
	statement, err := h.statement(dealer, c)
	if err != nil {
		return err
	}
	ack, err := signer.Sign(statement)
	if err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	if dealer == h.node.cfg.Self {
		return h.acknowledged(dealer, ack)
	}
	return h.node.sendAcknowledgement(ctx, h, dealer, ack)
}

// acknowledged takes an acknowledgement of this replica's dealing. With a quorum of them the dealing is certified and goes into the log.
func (h *handoff) acknowledged(from bft.ReplicaID, ack []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dealing == nil || h.sent {
		return nil
	}
	h.acks[from] = ack
	scheme, _, err := h.node.scheme(h.epoch, h.secret, h.sharing)
	if err != nil {
		return err
	}
	if len(h.acks) < h.params.T {
		return nil
	}
	certificate, bad, err := scheme.Combine(h.ackMessage, h.acks)
	for _, id := range bad {
		h.node.log.Warn("bad acknowledgement of a dealing", "replica", id)
		delete(h.acks, id)
	}
	if err != nil {
		return nil // others will acknowledge
	}
	key, err := h.dealing.Commitment().PublicKey()
	if err != nil {
		return err
	}
	h.sent = true
	return h.node.order(&governance.Dealing{
		Epoch: h.epoch, Round: h.round, Dealer: h.node.cfg.Self,
		Commitment: h.dealing.Commitment().Digest(), PublicKey: [governance.PublicKeySize]byte(key.Bytes()), Certificate: certificate,
	})
}

// complete makes this replica's share of the next epoch from the chosen dealings, fetching what it lacks of them, and seals it.
func (h *handoff) complete(ctx context.Context, chosen []governance.ChosenDealing) error {
	held := make(map[bft.Digest]heldDealing, len(chosen))
	verifier, err := h.node.verifierOf(h.epoch)
	if err != nil {
		return err
	}
	var dealings []*threshold.CertifiedDealing
	parts := make(map[int]*threshold.Part, len(chosen))
	for _, c := range chosen {
		d, err := h.obtain(ctx, c)
		if err != nil {
			return fmt.Errorf("dealing of %d: %w", c.Dealer, err)
		}
		held[c.Commitment] = d
		certified, err := c.Certify(h.node.cluster, h.epoch, h.round, verifier, d.commitment, dealingContext(h.node.cluster, h.epoch, h.round, c.Dealer))
		if err != nil {
			return fmt.Errorf("dealing of %d: %w", c.Dealer, err)
		}
		parts[int(c.Dealer)] = d.part
		dealings = append(dealings, certified)
	}
	transition, err := h.transition(ctx, dealings)
	if err != nil {
		return err
	}
	share, err := transition.Share(parts)
	if err != nil {
		return err
	}
	next, err := h.node.prepare(h, transition.Sharing(), share, held)
	if err != nil {
		share.Wipe()
		return err
	}
	h.mu.Lock()
	h.next = next
	h.mu.Unlock()
	close(h.completed)
	return nil
}

// obtain returns a chosen dealing: as received, from memory or disk, or, if this replica missed it, completed from the points of others.
func (h *handoff) obtain(ctx context.Context, c governance.ChosenDealing) (heldDealing, error) {
	if d, ok := h.find(c.Commitment); ok {
		return d, nil
	}
	commitment, err := h.node.fetchCommitment(ctx, c)
	if err != nil {
		return heldDealing{}, err
	}
	points := h.node.fetchPoints(ctx, h, c)
	defer func() {
		for i := range points {
			points[i].Wipe()
		}
	}()
	part, bad, err := commitment.Complete(int(h.node.cfg.Self), points)
	if len(bad) > 0 {
		h.node.log.Warn("bad points of a dealing", "from", bad, "dealer", c.Dealer)
	}
	if err != nil {
		return heldDealing{}, err
	}
	d := heldDealing{commitment, part}
	if err := h.keep(d); err != nil {
		part.Wipe()
		return heldDealing{}, err
	}
	return d, nil
}

// find returns a dealing that this replica holds in memory or on disk.
func (h *handoff) find(digest bft.Digest) (heldDealing, bool) {
	h.mu.Lock()
	d, ok := h.held[digest]
	h.mu.Unlock()
	if ok || h.secret == nil {
		return d, ok
	}
	if d, ok = h.node.loadPart(&h.secret.vaultKey, h.epoch, digest); ok {
		h.mu.Lock()
		h.hold(d)
		h.mu.Unlock()
	}
	return d, ok
}

// transition combines dealings into the next sharing. A replica that was away when this epoch began may lack its sharing; it takes that
// of another, and the chosen dealings themselves tell whether it is the right one.
func (h *handoff) transition(ctx context.Context, dealings []*threshold.CertifiedDealing) (*threshold.Transition, error) {
	if h.epoch == 0 {
		return threshold.KeyGeneration(dealings...)
	}
	if h.sharing != nil {
		return threshold.Resharing(h.sharing, dealings...)
	}
	return h.node.transitionByOthers(ctx, h.epoch, dealings)
}

// take returns what a completed handoff gave this replica, to be put into force; nil if the handoff was discarded.
func (h *handoff) take() *nextEpoch {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taken = h.next != nil
	return h.next
}

// wipe erases the secrets that a handoff holds in memory, but for those parts that made the next sharing: replicas that missed some may ask.
func (h *handoff) wipe(but map[bft.Digest]heldDealing) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dealing != nil {
		h.dealing.Wipe()
		h.dealing = nil
	}
	for digest, d := range h.held {
		if kept, ok := but[digest]; !ok || kept.part != d.part {
			d.part.Wipe()
		}
	}
	h.held = nil
}

// discard erases all secrets of a handoff that another one took the place of, once nothing works on it any more. What it gave this replica
// ends with it, unless that is in force.
func (h *handoff) discard() {
	<-h.finished
	h.mu.Lock()
	taken, next := h.taken, h.next
	if !taken {
		h.next = nil
	}
	h.mu.Unlock()
	if taken {
		return // advance wipes
	}
	h.wipe(nil)
	if next != nil {
		next.secret.retire()
		for _, d := range next.held {
			d.part.Wipe()
		}
	}
}
