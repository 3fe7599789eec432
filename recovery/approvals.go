package recovery

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/attest"
)

// methodApprovals gives anybody the approvals of all boot states towards the TPM of the member that
// he names. They are no secret, and prove themselves.
const methodApprovals = "reseal/approvals"

func (n *Node) serveApprovals(_ context.Context, _ *transport.Sender, request []byte) ([]byte, error) {
	if len(request) != 2 {
		return nil, errors.New("malformed call")
	}
	var b cryptobyte.Builder
	for _, a := range n.state.Approvals(bft.ReplicaID(binary.BigEndian.Uint16(request))) {
		raw, err := a.MarshalBinary()
		if err != nil {
			return nil, err
		}
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(raw) })
	}
	return b.Bytes()
}

// learnPatience is how long a replica asks for approvals at its start, and askPatience how long it
// asks one member.
const (
	learnPatience = 10 * time.Second
	askPatience   = time.Second
)

// learnApprovals asks the other members which boot states are approved, and reports whether its TPM
// learnt of any. It is for a machine that booted into a state that was approved while it was away:
// its identity key answers in an approved state only, so it cannot take part before, and asks as
// anybody could. An approval counts by the operators' signature for this TPM alone, so nobody needs
// to be believed.
func (n *Node) learnApprovals(ctx context.Context) (learnt bool) {
	if n.device == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, learnPatience)
	defer cancel()
	for i := range n.cfg.Genesis.Members {
		m := &n.cfg.Genesis.Members[i]
		identity, err := attest.ParseIdentity(m.Identity)
		if m.ID == n.cfg.Self || err != nil {
			continue
		}
		approvals, err := n.askApprovals(ctx, transport.Peer{ID: m.ID, Address: m.Address, Identity: identity})
		if err != nil {
			n.log.Debug("a replica did not say which boot states are approved", "replica", m.ID, "error", err)
			continue
		}
		for _, a := range approvals {
			if err := n.device.attester.AddApproval(a); err != nil {
				n.log.Warn("what a replica says is approved is not", "replica", m.ID, "error", err)
				continue
			}
			learnt = true
		}
	}
	return learnt
}

func (n *Node) askApprovals(ctx context.Context, peer transport.Peer) ([]*keystore.Approval, error) {
	conn, err := transport.Dial(n.cluster, peer)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	answer, err := conn.Call(ctx, methodApprovals, binary.BigEndian.AppendUint16(nil, uint16(n.cfg.Self)))
	if err != nil {
		return nil, err
	}
	var approvals []*keystore.Approval
	for s := cryptobyte.String(answer); !s.Empty(); {
		var raw cryptobyte.String
		if !s.ReadUint16LengthPrefixed(&raw) || len(approvals) == attest.MaxApproved {
			return nil, errors.New("malformed answer")
		}
		a, err := keystore.ParseApproval(raw)
		if err != nil {
			return nil, err
		}
		approvals = append(approvals, a)
	}
	return approvals, nil
}
