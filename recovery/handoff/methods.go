package handoff

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/recovery/internal/plant"
	"github.com/reseal-bft/reseal/threshold"
)

// Methods by which the members of a handoff serve each other. Parts and points are secret: they
// travel only over a connection that is authenticated by the very key under which their receiver
// will have its share.
const (
	methodPart        = "reseal/handoff/part"
	methodAcknowledge = "reseal/handoff/acknowledge"
	methodCommitment  = "reseal/handoff/commitment"
	methodPoint       = "reseal/handoff/point"
	methodSharing     = "reseal/handoff/sharing"
)

// callTimeout is how long a peer may take to answer, and secretTimeout who gives a secret: it asks
// others first whether the epoch is not over, and their devices may be slow.
const (
	callTimeout   = 2 * time.Second
	secretTimeout = 10 * time.Second
)

var (
	errNotHere   = errors.New("not here, or not yet")
	errMalformed = errors.New("malformed call")
)

func (p *Party) serve() {
	p.cfg.Network.Handle(methodPart, p.servePart)
	p.cfg.Network.Handle(methodAcknowledge, p.serveAcknowledge)
	p.cfg.Network.Handle(methodCommitment, p.serveCommitment)
	p.cfg.Network.Handle(methodPoint, p.servePoint)
	p.cfg.Network.Handle(methodSharing, p.serveSharing)
}

func (p *Party) call(ctx context.Context, to bft.ReplicaID, method string, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return p.cfg.Network.Call(ctx, to, method, request)
}

// callAsReceiver calls under the key that this replica has in the epoch that the handoff leads to:
// parts and points are given to its holder only.
func (a *attempt) callAsReceiver(ctx context.Context, to bft.ReplicaID, method string, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, secretTimeout)
	defer cancel()
	if me := a.p.cfg.State.Membership().Member(a.p.cfg.Self); me != nil && a.epochKey.Equal(me.EpochKey) {
		return a.p.cfg.Network.Call(ctx, to, method, request) // it is the present one too
	}
	credential, err := a.certified()
	if err != nil {
		return nil, err
	}
	return a.p.cfg.Network.CallUnder(ctx, *credential, to, method, request)
}

func (a *attempt) certified() (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.credential == nil {
		key := a.p.cfg.Keeper.PrivateKey(a.epochKey)
		if key == nil {
			return nil, errNotHere
		}
		credential, err := a.p.cfg.Certify(key)
		if err != nil {
			return nil, err
		}
		a.credential = &credential
	}
	return a.credential, nil
}

// name is how calls name an attempt.
func (a *attempt) name(more ...byte) []byte {
	var b cryptobyte.Builder
	b.AddUint64(uint64(a.from))
	b.AddUint64(uint64(a.round))
	b.AddBytes(more)
	return b.BytesOrPanic()
}

// named returns the attempt that a call names, if it is this replica's present one, and the rest of
// the call.
func (p *Party) named(request []byte) (*attempt, []byte, error) {
	s := cryptobyte.String(request)
	var epoch, round uint64
	if !s.ReadUint64(&epoch) || !s.ReadUint64(&round) {
		return nil, nil, errMalformed
	}
	p.mu.Lock()
	a := p.attempt
	p.mu.Unlock()
	if a == nil || uint64(a.from) != epoch || uint64(a.round) != round {
		return nil, nil, errNotHere
	}
	return a, s, nil
}

// mayReceive checks that a caller is to have a share of an epoch, and calls under its key of that
// epoch: the one that it attested, if it was due.
func (p *Party) mayReceive(from *transport.Sender, to bft.Epoch) error {
	v := p.cfg.State.View()
	m := v.Member(from.ID)
	if m == nil {
		return errors.New("not a member")
	}
	key, entitled := m.EpochKey, m.HoldsShare
	if v.Epoch+1 == to {
		entitled = slices.Contains(v.Eligible, m.ID)
		if m.NextKey != nil {
			key = m.NextKey
		}
	} else if v.Epoch != to {
		return errNotHere
	}
	if !entitled || !bytes.Equal(key, from.EpochKey) && !plant.Bug("any-key") {
		return fmt.Errorf("replica %d gets no share in this handoff, or not over this connection", m.ID)
	}
	return nil
}

func (p *Party) servePart(ctx context.Context, from *transport.Sender, request []byte) ([]byte, error) {
	a, _, err := p.named(request)
	if err != nil {
		return nil, err
	}
	if err := p.mayReceive(from, a.to); err != nil {
		return nil, err
	}
	// The wait for this replica's device may be long, and what was vouched for before it no longer so.
	if err := a.awaitDealing(ctx); err != nil {
		return nil, err
	}
	if err := p.cfg.Present(ctx, a.from); err != nil {
		return nil, err
	}
	commitment, part, err := a.offer(ctx, from.ID)
	if err != nil {
		return nil, err
	}
	raw, err := commitment.MarshalBinary()
	if err != nil {
		return nil, err
	}
	defer part.Wipe()
	secret := part.SecretBytes()
	defer clear(secret)
	var b cryptobyte.Builder
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(raw) })
	b.AddBytes(secret)
	return b.Bytes()
}

// awaitDealing waits until this replica's dealing is made.
func (a *attempt) awaitDealing(ctx context.Context) error {
	select {
	case <-a.dealt:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// offer returns this replica's dealing for a receiver, when it is made.
func (a *attempt) offer(ctx context.Context, to bft.ReplicaID) (*threshold.Commitment, *threshold.Part, error) {
	if err := a.awaitDealing(ctx); err != nil {
		return nil, nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dealing == nil {
		return nil, nil, errNotHere // the handoff is over
	}
	part, err := a.dealing.Part(int(to))
	return a.dealing.Commitment(), part, err
}

// fetchPart gets this replica's part of a dealer's dealing.
func (a *attempt) fetchPart(ctx context.Context, dealer bft.ReplicaID) (*threshold.Commitment, *threshold.Part, error) {
	if dealer == a.p.cfg.Self {
		return a.offer(ctx, dealer)
	}
	answer, err := a.callAsReceiver(ctx, dealer, methodPart, a.name())
	if err != nil {
		return nil, nil, err
	}
	defer clear(answer)
	s := cryptobyte.String(answer)
	var raw cryptobyte.String
	if !s.ReadUint24LengthPrefixed(&raw) {
		return nil, nil, errors.New("malformed answer")
	}
	commitment, err := threshold.ParseCommitment(raw)
	if err != nil {
		return nil, nil, err
	}
	part, err := threshold.ParsePart(s)
	if err == nil && part.Index() != int(a.p.cfg.Self) {
		part.Wipe()
		err = errors.New("the part is another receiver's")
	}
	return commitment, part, err
}

// maxAcknowledgement bounds a partial signature of either scheme, in bytes.
const maxAcknowledgement = 128

func (p *Party) serveAcknowledge(_ context.Context, from *transport.Sender, request []byte) ([]byte, error) {
	a, ack, err := p.named(request)
	if err != nil {
		return nil, err
	}
	if member := p.cfg.State.Membership().Member(from.ID); member == nil || !member.Accepts(from.EpochKey) || len(ack) > maxAcknowledgement {
		return nil, errors.New("not a member under its key, or no acknowledgement")
	}
	return nil, a.acknowledged(from.ID, bytes.Clone(ack))
}

// withDealing hands use a held dealing that a call names by the digest of its commitment. The
// dealing may be wiped when use has returned.
func (p *Party) withDealing(digest []byte, use func(*held) error) error {
	if len(digest) != len(bft.Digest{}) {
		return errMalformed
	}
	return p.cfg.Keeper.with(bft.Digest(digest), use)
}

func (p *Party) serveCommitment(_ context.Context, _ *transport.Sender, digest []byte) (answer []byte, err error) {
	err = p.withDealing(digest, func(d *held) error {
		answer, err = d.commitment.MarshalBinary()
		return err
	})
	return answer, err
}

func (p *Party) servePoint(ctx context.Context, from *transport.Sender, digest []byte) (answer []byte, err error) {
	var to bft.Epoch
	may := func(d *held) error {
		to = d.to
		return p.mayReceive(from, d.to)
	}
	if err := p.withDealing(digest, may); err != nil {
		return nil, err
	}
	if err := p.cfg.Present(ctx, to); err != nil {
		return nil, err
	}
	err = p.withDealing(digest, func(d *held) error {
		if err := may(d); err != nil {
			return err
		}
		if !d.part.HasColumn() {
			return errNotHere
		}
		point, err := d.part.Point(int(from.ID))
		if err != nil {
			return err
		}
		defer point.Wipe()
		answer = point.SecretBytes()
		return nil
	})
	return answer, err
}

// fetchCommitment gets a chosen dealing's commitment from whoever has it.
func (p *Party) fetchCommitment(ctx context.Context, c governance.ChosenDealing) (*threshold.Commitment, error) {
	var found *threshold.Commitment
	err := p.ask(ctx, methodCommitment, c.Commitment[:], func(raw []byte) bool {
		commitment, err := threshold.ParseCommitment(raw)
		if err != nil || commitment.Digest() != c.Commitment {
			return false
		}
		found = commitment
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("nobody has the commitment: %w", err)
	}
	return found, nil
}

// ask asks all others at once, and hands on what they answer, as it comes, until something is taken:
// one that does not answer is not waited for.
func (p *Party) ask(ctx context.Context, method string, request []byte, take func(raw []byte) bool) error {
	type answer struct {
		raw []byte
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	peers := p.others()
	answers := make(chan answer, len(peers))
	for _, peer := range peers {
		go func() {
			raw, err := p.call(ctx, peer, method, request)
			answers <- answer{raw, err}
		}()
	}
	err := errNotHere
	for range peers {
		if a := <-answers; a.err != nil {
			err = a.err
		} else if take(a.raw) {
			return nil
		}
	}
	return err
}

// fetchPoints asks all others for this replica's points of a dealing, until it has enough: one that
// does not answer is not waited for. The commitment tells the good ones. The caller wipes them.
func (a *attempt) fetchPoints(ctx context.Context, commitment bft.Digest, enough func([]threshold.Point) bool) []threshold.Point {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan threshold.Point)
	peers := a.p.others()
	for _, peer := range peers {
		go func() {
			raw, err := a.callAsReceiver(ctx, peer, methodPoint, commitment[:])
			point, bad := threshold.ParsePoint(raw)
			clear(raw)
			if err != nil || bad != nil || point.From != int(peer) || point.To != int(a.p.cfg.Self) {
				point.Wipe()
				point = threshold.Point{}
			}
			answers <- point
		}()
	}
	var points []threshold.Point
	for range peers {
		point := <-answers
		if ctx.Err() != nil {
			point.Wipe()
			continue
		}
		if point.From == 0 {
			continue
		}
		if points = append(points, point); enough(points) {
			cancel()
		}
	}
	return points
}

// serveSharing answers with the public sharing of an epoch.
func (p *Party) serveSharing(_ context.Context, _ *transport.Sender, request []byte) ([]byte, error) {
	s := cryptobyte.String(request)
	var epoch uint64
	if !s.ReadUint64(&epoch) || !s.Empty() {
		return nil, errMalformed
	}
	sharing := p.cfg.Keeper.sharingOf(bft.Epoch(epoch))
	if sharing == nil {
		return nil, errNotHere
	}
	return sharing.MarshalBinary()
}

// transitionByOthers combines dealings with the help of a sharing that another replica gives. A
// wrong one does not pass: it must be the one whose shares the chosen dealings deal, and have the
// group key that this replica knows.
func (p *Party) transitionByOthers(ctx context.Context, epoch bft.Epoch, dealings []*threshold.CertifiedDealing) (*threshold.Transition, error) {
	groupKey := p.cfg.State.Membership().GroupKey
	var b cryptobyte.Builder
	b.AddUint64(uint64(epoch))
	var transition *threshold.Transition
	err := p.ask(ctx, methodSharing, b.BytesOrPanic(), func(raw []byte) bool {
		sharing, err := threshold.ParseSharing(raw)
		if err != nil || !bytes.Equal(sharing.GroupKey().Bytes(), groupKey) {
			return false
		}
		t, err := threshold.Resharing(sharing, dealings...)
		if err != nil {
			return false
		}
		if err := p.cfg.Keeper.disk.storeSharing(epoch, sharing); err != nil { // a restart needs it again
			p.cfg.Log.Warn("the sharing of the epoch before is not on disk", "error", err)
		}
		transition = t
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("nobody has the sharing of epoch %d: %w", epoch, err)
	}
	return transition, nil
}
