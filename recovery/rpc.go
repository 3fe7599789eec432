package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/threshold"
)

// Methods by which the members of a handoff serve each other. Parts and points are secret: they travel only over a connection that is
// authenticated by the very key under which their receiver will have its share.
const (
	methodPart        = "reseal/handoff/part"
	methodAcknowledge = "reseal/handoff/acknowledge"
	methodCommitment  = "reseal/handoff/commitment"
	methodPoint       = "reseal/handoff/point"
	methodSharing     = "reseal/handoff/sharing"
)

const callTimeout = 2 * time.Second

var errNotHere = errors.New("not here, or not yet")

func (n *Node) serve() {
	n.transport.Handle(methodPart, n.servePart)
	n.transport.Handle(methodAcknowledge, n.serveAcknowledge)
	n.transport.Handle(methodCommitment, n.serveCommitment)
	n.transport.Handle(methodPoint, n.servePoint)
	n.transport.Handle(methodSharing, n.serveSharing)
	n.transport.HandleClient(methodInfo, n.serveInfo)
}

func (n *Node) call(ctx context.Context, to bft.ReplicaID, method string, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return n.transport.Call(ctx, to, method, request)
}

// callAsReceiver calls under the key that this replica has in the next epoch: parts and points are given to its holder only.
func (n *Node) callAsReceiver(ctx context.Context, h *handoff, to bft.ReplicaID, method string, request []byte) ([]byte, error) {
	n.mu.Lock()
	same := n.wearing.Equal(h.epochKey.Public())
	n.mu.Unlock()
	if same {
		return n.call(ctx, to, method, request)
	}
	credential, err := h.credential()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return n.transport.CallUnder(ctx, credential, to, method, request)
}

func handoffName(h *handoff, more ...byte) []byte {
	var b cryptobyte.Builder
	b.AddUint64(uint64(h.epoch))
	b.AddUint64(uint64(h.round))
	b.AddBytes(more)
	return b.BytesOrPanic()
}

// handoffNamed returns the handoff that a call names, if it is this replica's present one, and the rest of the call.
func (n *Node) handoffNamed(request []byte) (*handoff, []byte, error) {
	s := cryptobyte.String(request)
	var epoch, round uint64
	if !s.ReadUint64(&epoch) || !s.ReadUint64(&round) {
		return nil, nil, errors.New("malformed call")
	}
	n.mu.Lock()
	h := n.handoff
	n.mu.Unlock()
	if h == nil || uint64(h.epoch) != epoch || uint64(h.round) != round {
		return nil, nil, errNotHere
	}
	return h, s, nil
}

// mayReceive checks that a caller is an eligible receiver, on a connection under its key of the next epoch.
func (n *Node) mayReceive(from *transport.Sender, epoch bft.Epoch) error {
	v := n.state.View()
	m := v.Member(from.ID)
	if m == nil {
		return errors.New("not a member")
	}
	key, entitled := m.EpochKey, m.HoldsShare
	if v.Epoch == epoch {
		entitled = slices.Contains(v.Eligible, m.ID)
		if m.NextKey != nil {
			key = m.NextKey
		}
	} else if v.Epoch != epoch+1 {
		return errNotHere
	}
	if !entitled || !bytes.Equal(key, from.EpochKey) {
		return fmt.Errorf("replica %d gets no share in this handoff, or not over this connection", m.ID)
	}
	return nil
}

func (n *Node) servePart(ctx context.Context, from *transport.Sender, request []byte) ([]byte, error) {
	h, _, err := n.handoffNamed(request)
	if err != nil {
		return nil, err
	}
	if err := n.mayReceive(from, h.epoch); err != nil {
		return nil, err
	}
	commitment, part, err := h.offer(ctx, from.ID)
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

// offer returns this replica's dealing for a receiver, when it is made.
func (h *handoff) offer(ctx context.Context, to bft.ReplicaID) (*threshold.Commitment, *threshold.Part, error) {
	select {
	case <-h.dealt:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dealing == nil {
		return nil, nil, errNotHere // the handoff is over
	}
	part, err := h.dealing.Part(int(to))
	return h.dealing.Commitment(), part, err
}

// fetchPart gets this replica's part of a dealer's dealing.
func (n *Node) fetchPart(ctx context.Context, h *handoff, dealer bft.ReplicaID) (*threshold.Commitment, *threshold.Part, error) {
	if dealer == n.cfg.Self {
		return h.offer(ctx, dealer)
	}
	answer, err := n.callAsReceiver(ctx, h, dealer, methodPart, handoffName(h))
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
	if err != nil {
		return nil, nil, err
	}
	if part.Index() != int(n.cfg.Self) {
		part.Wipe()
		return nil, nil, errors.New("the part is another receiver's")
	}
	return commitment, part, nil
}

func (n *Node) sendAcknowledgement(ctx context.Context, h *handoff, dealer bft.ReplicaID, ack []byte) error {
	_, err := n.call(ctx, dealer, methodAcknowledge, handoffName(h, ack...))
	return err
}

// maxAcknowledgement bounds a partial signature of either scheme, in bytes.
const maxAcknowledgement = 128

func (n *Node) serveAcknowledge(_ context.Context, from *transport.Sender, request []byte) ([]byte, error) {
	h, ack, err := n.handoffNamed(request)
	if err != nil {
		return nil, err
	}
	if member := n.state.Membership().Member(from.ID); member == nil || !member.Accepts(from.EpochKey) || len(ack) > maxAcknowledgement {
		return nil, errors.New("not a member under its key, or no acknowledgement")
	}
	return nil, h.acknowledged(from.ID, bytes.Clone(ack))
}

// withDealing hands use a dealing of the running or of the last handoff, named by the digest of its commitment. The dealing may be wiped when use
// has returned.
func (n *Node) withDealing(digest []byte, use func(heldDealing) error) error {
	if len(digest) != len(bft.Digest{}) {
		return errors.New("malformed call")
	}
	name := bft.Digest(digest)
	n.mu.Lock()
	if d, ok := n.held[name]; ok {
		defer n.mu.Unlock()
		return use(d)
	}
	h, epoch := n.handoff, n.epoch
	var vaultKey [32]byte
	if n.secret != nil {
		vaultKey = n.secret.vaultKey
	}
	n.mu.Unlock()
	defer clear(vaultKey[:])
	if h != nil {
		h.mu.Lock()
		if d, ok := h.held[name]; ok {
			defer h.mu.Unlock()
			return use(d)
		}
		h.mu.Unlock()
	}
	d, ok := n.loadPart(&vaultKey, epoch, name) // kept before a restart
	if !ok {
		return errNotHere
	}
	defer d.part.Wipe()
	return use(d)
}

// dealtIn returns the epoch in which a dealing was dealt.
func (d heldDealing) dealtIn() (bft.Epoch, error) {
	s := cryptobyte.String(d.commitment.Context())
	var epoch uint64
	if !s.Skip(len(dealingContextDomain)+len(bft.ClusterID{})) || !s.ReadUint64(&epoch) {
		return 0, errors.New("a dealing without its context")
	}
	return bft.Epoch(epoch), nil
}

func (n *Node) serveCommitment(_ context.Context, _ *transport.Sender, digest []byte) (answer []byte, err error) {
	err = n.withDealing(digest, func(d heldDealing) error {
		answer, err = d.commitment.MarshalBinary()
		return err
	})
	return answer, err
}

func (n *Node) servePoint(_ context.Context, from *transport.Sender, digest []byte) (answer []byte, err error) {
	err = n.withDealing(digest, func(d heldDealing) error {
		epoch, err := d.dealtIn()
		if err != nil {
			return err
		}
		if err := n.mayReceive(from, epoch); err != nil {
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
func (n *Node) fetchCommitment(ctx context.Context, c governance.ChosenDealing) (*threshold.Commitment, error) {
	err := errNotHere
	for _, peer := range n.others() {
		var raw []byte
		if raw, err = n.call(ctx, peer, methodCommitment, c.Commitment[:]); err != nil {
			continue
		}
		var commitment *threshold.Commitment
		if commitment, err = threshold.ParseCommitment(raw); err == nil && commitment.Digest() == c.Commitment {
			return commitment, nil
		}
	}
	return nil, fmt.Errorf("nobody has the commitment: %w", err)
}

// fetchPoints asks all others for this replica's points of a dealing. The commitment tells the good ones.
func (n *Node) fetchPoints(ctx context.Context, h *handoff, c governance.ChosenDealing) []threshold.Point {
	answers := make(chan threshold.Point)
	peers := n.others()
	for _, peer := range peers {
		go func() {
			raw, err := n.callAsReceiver(ctx, h, peer, methodPoint, c.Commitment[:])
			point, bad := threshold.ParsePoint(raw)
			clear(raw)
			if err != nil || bad != nil || point.From != int(peer) || point.To != int(n.cfg.Self) {
				point.Wipe()
				point = threshold.Point{}
			}
			answers <- point
		}()
	}
	var points []threshold.Point
	for range peers {
		if p := <-answers; p.From != 0 {
			points = append(points, p)
		}
	}
	return points
}

// serveSharing answers with the public sharing of an epoch.
func (n *Node) serveSharing(_ context.Context, _ *transport.Sender, request []byte) ([]byte, error) {
	s := cryptobyte.String(request)
	var epoch uint64
	if !s.ReadUint64(&epoch) || !s.Empty() {
		return nil, errors.New("malformed call")
	}
	sharing := n.loadSharing(bft.Epoch(epoch))
	if sharing == nil {
		return nil, errNotHere
	}
	return sharing.MarshalBinary()
}

// transitionByOthers combines dealings with the help of a sharing that another replica gives. A wrong one does not pass: it must be the one
// whose shares the chosen dealings deal, and have the group key that this replica knows.
func (n *Node) transitionByOthers(ctx context.Context, epoch bft.Epoch, dealings []*threshold.CertifiedDealing) (*threshold.Transition, error) {
	groupKey := n.state.Membership().GroupKey
	var b cryptobyte.Builder
	b.AddUint64(uint64(epoch))
	err := errNotHere
	for _, peer := range n.others() {
		var raw []byte
		if raw, err = n.call(ctx, peer, methodSharing, b.BytesOrPanic()); err != nil {
			continue
		}
		sharing, bad := threshold.ParseSharing(raw)
		if bad != nil || !bytes.Equal(sharing.GroupKey().Bytes(), groupKey) {
			continue
		}
		if t, bad := threshold.Resharing(sharing, dealings...); bad == nil {
			return t, nil
		}
	}
	return nil, fmt.Errorf("nobody has the sharing of epoch %d: %w", epoch, err)
}

// others returns the other members.
func (n *Node) others() []bft.ReplicaID {
	var out []bft.ReplicaID
	for _, m := range n.state.Membership().Members {
		if m.ID != n.cfg.Self {
			out = append(out, m.ID)
		}
	}
	return out
}
