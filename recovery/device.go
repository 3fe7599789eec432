package recovery

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/recovery/internal/plant"
)

// tpmDriver does what the log asks of this replica's TPM: it carries out approvals and revocations,
// and shows which boot the machine is in. The driver's alone.
type tpmDriver struct {
	attester keystore.Attester
	// status is what the TPM said at the start: its counts do not change in a boot but by what is
	// done here.
	status keystore.Status
	// approved are the approvals that were handed to the keystore, by signature.
	approved map[string]bool
	// presented is when presence was last submitted.
	presented time.Time
	// early is the height at which this replica became due when the TPM could not tell that the
	// reset came after it: only another reset helps.
	early bft.Height
}

// newTPMDriver is nil for a keystore without a TPM.
func newTPMDriver(ks keystore.Keystore) (*tpmDriver, error) {
	attester, ok := ks.(keystore.Attester)
	if !ok {
		return nil, nil
	}
	status, err := ks.Status()
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	return &tpmDriver{attester: attester, status: status, approved: map[string]bool{}}, nil
}

// obey makes this replica's TPM refuse what the log has revoked, and take what it approves.
func (n *Node) obey(v *governance.View) error {
	me := v.Member(n.cfg.Self).Device
	if n.device == nil || me == nil {
		return nil
	}
	before := n.device.status.ApprovalVersion
	err := n.device.obey(me.RequiredVersion, n.state.Approvals(n.cfg.Self))
	if now := n.device.status.ApprovalVersion; now != before {
		n.log.Info("the TPM refuses all approvals that were revoked", "version", now)
	}
	return err
}

// obey raises the approval counter to the required version, then hands over the approvals that the
// TPM still takes: what was revoked comes first. It is idempotent, and goes on where it was.
func (d *tpmDriver) obey(required uint64, approvals []*keystore.Approval) error {
	if required > d.status.ApprovalVersion && !plant.Bug("revocation-not-executed") {
		version, err := d.attester.RevokeApprovals(required - 1)
		if err != nil {
			return fmt.Errorf("the TPM does not refuse yet what was revoked: %w", err)
		}
		d.status.ApprovalVersion = version
		if version < required {
			return fmt.Errorf("the TPM does not refuse yet what was revoked: it has counted to version %d of %d", version, required)
		}
	}
	var failed error
	for _, a := range approvals {
		name := string(a.Signature)
		if d.approved[name] || a.State.Version < d.status.ApprovalVersion {
			continue
		}
		if err := d.attester.AddApproval(a); err != nil {
			failed = errors.Join(failed, fmt.Errorf("an approved boot state is not known to the TPM yet: %w", err))
			continue
		}
		d.approved[name] = true
	}
	return failed
}

// methodEvidence gives clients the last accepted evidence of the member that they name; empty if
// there is none.
const methodEvidence = "reseal/evidence"

func (n *Node) serveEvidence(_ context.Context, _ *transport.Sender, request []byte) ([]byte, error) {
	if len(request) != 2 {
		return nil, errors.New("malformed call")
	}
	return n.state.View().Evidence(bft.ReplicaID(binary.BigEndian.Uint16(request))), nil
}

// considerPresence shows the boot that the machine is in, when the log wants to know: when this
// replica has become due and was not reset since, when its TPM has carried out a revocation, and
// after a start.
func (n *Node) considerPresence(ctx context.Context, v *governance.View) error {
	me, d := v.Member(n.cfg.Self), n.device
	if d == nil || me.Device == nil || time.Since(d.presented) < attestAgain || !n.wantsPresence(v, me) {
		return nil
	}
	header, certificate, ok := n.replica.Load().Anchor()
	if !ok || header.Epoch != v.Epoch || v.Epoch == 0 ||
		header.Height <= me.Device.ShownAt || header.Height < me.Awaited.Height {
		return nil // a fresh certificate comes with the next blocks
	}
	presence, err := attest.NewPresence(rand.Reader, attest.Challenge{
		Cluster: n.cluster, Replica: n.cfg.Self, Epoch: v.Epoch, Anchor: header, Certificate: certificate,
	}, n.cfg.Keystore.Identity(), n.quote())
	if err != nil {
		return err
	}
	d.presented = time.Now()
	n.log.Info("showing the boot that this machine is in", "resets", d.status.ResetCount, "anchor", header.Height)
	return n.orderThroughOthers(ctx, &governance.Present{Presence: presence})
}

func (n *Node) wantsPresence(v *governance.View, me *governance.MemberView) bool {
	known, d := me.Device, n.device
	if me.Due && v.Phase == governance.PhaseAttesting {
		// Evidence says it all, unless it needs a reset that is still to come.
		return !me.Awaited.Shown && (d.status.ResetCount <= me.ResetCount || d.early == me.Awaited.Height)
	}
	return known.ShownAt == 0 || known.ResetCount != d.status.ResetCount || known.ApprovalVersion != d.status.ApprovalVersion
}

// wasReset says whether the machine was reset after this replica became due, as far as can be known
// before the evidence is made. Where no keystore can prove a boot, a start of this process stands
// for it, for which nobody but this process vouches.
func (n *Node) wasReset(me *governance.MemberView) bool {
	d, due := n.device, &me.Awaited
	if d == nil || me.Device == nil {
		return n.rebooted == due.Height || n.started.After(time.UnixMilli(due.Time))
	}
	return d.status.ResetCount > me.ResetCount && d.early != due.Height && (!due.Shown || d.status.ResetCount > due.ResetCount)
}

// foresee judges evidence as the log will. What would be refused for want of a reset is not
// submitted: it would be held against this replica.
func (n *Node) foresee(e *attest.Evidence, me *governance.MemberView) (*attest.Refusal, error) {
	d := n.device
	if d == nil || me.Device == nil {
		return nil, nil
	}
	quote, err := keystore.ParseQuote(e.Quote)
	if err != nil {
		return nil, err
	}
	nonce := attest.Nonce(n.cluster, e.Replica, e.Epoch, e.Round, e.Certificate.Signature, e.EpochKey)
	claims, err := keystore.VerifyQuote(d.attester.AttestationKey(), nonce[:], quote)
	if err != nil {
		return nil, err
	}
	policy := attest.Policy{Ahead: time.Duration(n.cfg.Genesis.Timeouts.Ahead).Milliseconds()}
	return policy.Rebooted(claims, e.Anchor.Time, &attest.Subject{ResetCount: me.ResetCount, Due: me.Awaited}), nil
}
