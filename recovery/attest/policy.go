package attest

import (
	"crypto/ecdsa"
	"crypto/ed25519"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/internal/plant"
)

// Policy judges evidence and presence. It is a pure function of the replicated state: every replica
// comes to the same verdict.
type Policy struct {
	Cluster bft.ClusterID
	Epoch   bft.Epoch
	Round   Round
	// Opened is the height of the block in which the round opened.
	Opened bft.Height
	// Scheme verifies the anchor's certificate: threshold signatures under the group key.
	Scheme      Verifier
	Attestation Attestation
	// Ahead bounds the difference between the clocks of correct replicas, in milliseconds.
	Ahead int64
}

// Verifier checks certificates of the current epoch; [bft.Scheme] is one.
type Verifier interface {
	Verify(messages [][]byte, signatures [][]byte) []bool
}

// Subject is what the log knows of the replica that the evidence is about.
type Subject struct {
	Identity       *ecdsa.PublicKey
	AttestationKey []byte
	// Slot of the keystore on its TPM: which of its counters approvals hang on.
	Slot uint8
	// ResetCount is that of the last recovery, or of enrolment.
	ResetCount uint32
	// EpochKey is the replica's present key: the fresh one must be another. That another replica
	// claims the same key is not asked: it could claim it in time to have the owner refused, and
	// has no use of it, since whatever the key signs names the signer.
	EpochKey ed25519.PublicKey
	// NextKey is the key that the replica attested last in this epoch, nil for none: when it is due
	// again, that key is from before.
	NextKey ed25519.PublicKey
	// Required is the version that the approval counter must have reached.
	Required uint64
	// Due says since when evidence is awaited.
	Due Due
}

// Boot is what a TPM showed of the boot that its machine runs in.
type Boot struct {
	ResetCount uint32
	// ApprovalVersion is the lowest version of approvals that the TPM still takes.
	ApprovalVersion uint64
	// State names the approved boot state; empty when none of those approved now was shown, which
	// only presence may do.
	State string
}

// Verdict is what accepted evidence proves.
type Verdict struct {
	// Attested is false when the policy asks for no quote: then only the identity key's possession
	// is proven.
	Attested bool
	Boot
}

// Verify judges evidence and returns a verdict or the first refusal. A refusal with ReasonIdentity
// or ReasonRound must not be held against the replica: anybody can submit evidence in its name, or
// what it signed for another round.
func (p *Policy) Verify(e *Evidence, subject *Subject) (*Verdict, *Refusal) {
	if !e.signedBy(subject.Identity, func() ([]byte, error) { return e.claim(p.Cluster) }) {
		return nil, Refuse(ReasonIdentity, "the evidence is not signed by the identity key of replica %d", e.Replica)
	}
	if e.Epoch != p.Epoch || e.Round != p.Round {
		return nil, Refuse(ReasonRound, "the evidence is for epoch %d, round %d; this is epoch %d, round %d", e.Epoch, e.Round, p.Epoch, p.Round)
	}
	if r := p.verifyAnchor(&e.Proof, p.Opened); r != nil {
		return nil, r
	}
	if subject.EpochKey.Equal(e.EpochKey) || subject.NextKey.Equal(e.EpochKey) {
		return nil, Refuse(ReasonKeyReused, "the epoch key is one that was in use or attested before: replica %d must make a fresh one", e.Replica)
	}
	if !p.Attestation.Required {
		return &Verdict{}, nil
	}
	claims, r := verifyQuote(&e.Proof, subject, Nonce(p.Cluster, e.Replica, e.Epoch, e.Round, e.Certificate.Signature, e.EpochKey))
	if r != nil {
		return nil, r
	}
	state, r := p.Attestation.judge(claims)
	if r != nil {
		return nil, r
	}
	if r := p.Rebooted(claims, e.Anchor.Time, subject); r != nil {
		return nil, r
	}
	return &Verdict{true, Boot{claims.ResetCount, claims.ApprovalVersion, state}}, nil
}

// VerifyPresence judges what a replica shows of its present boot. None of its refusals is held
// against the replica. A boot state that is not approved, or no longer, is no reason to refuse: it
// is what the log wants to know.
func (p *Policy) VerifyPresence(x *Presence, subject *Subject) (*Boot, *Refusal) {
	if !x.signedBy(subject.Identity, func() ([]byte, error) { return x.claim(p.Cluster) }) {
		return nil, Refuse(ReasonIdentity, "the presence is not signed by the identity key of replica %d", x.Replica)
	}
	if x.Epoch != p.Epoch {
		return nil, Refuse(ReasonRound, "the presence is for epoch %d; this is epoch %d", x.Epoch, p.Epoch)
	}
	if r := p.verifyAnchor(&x.Proof, 0); r != nil {
		return nil, r
	}
	claims, r := verifyQuote(&x.Proof, subject, PresenceNonce(p.Cluster, x.Replica, x.Epoch, x.Certificate.Signature))
	if r != nil {
		return nil, r
	}
	if claims.ResetCount < subject.ResetCount {
		return nil, resetCountFell(claims, subject)
	}
	state, r := p.Attestation.judge(claims)
	if r != nil && r.Reason == ReasonUnclaimed {
		return nil, r
	}
	return &Boot{claims.ResetCount, claims.ApprovalVersion, state}, nil
}

// verifyAnchor checks that the anchor was certified in this epoch, at the least height or above.
func (p *Policy) verifyAnchor(x *Proof, least bft.Height) *Refusal {
	a, s := &x.Anchor, x.Certificate.Statement
	if s.Kind != bft.Notarize && s.Kind != bft.Finalize || s.Epoch != a.Epoch || s.View != a.View || s.Block != a.Digest() {
		return Refuse(ReasonAnchor, "the anchor's certificate is not a notarization or finalization of its header")
	}
	if a.Epoch != p.Epoch || a.Height < least {
		return Refuse(ReasonStaleAnchor, "the anchor at height %d of epoch %d is from before the round, which opened at height %d of epoch %d",
			a.Height, a.Epoch, p.Opened, p.Epoch)
	}
	if ok := p.Scheme.Verify([][]byte{s.Bytes(p.Cluster)}, [][]byte{x.Certificate.Signature}); len(ok) != 1 || !ok[0] {
		return Refuse(ReasonCertificate, "the anchor's certificate does not verify under the group key")
	}
	return nil
}

// verifyQuote checks that the TPM said it, in answer to this.
func verifyQuote(x *Proof, subject *Subject, nonce [32]byte) (*keystore.Claims, *Refusal) {
	if len(x.Quote) == 0 {
		return nil, Refuse(ReasonNoQuote, "there is no quote, and the policy requires one")
	}
	q, err := keystore.ParseQuote(x.Quote)
	if err != nil {
		return nil, Refuse(ReasonQuote, "%v", err)
	}
	claims, err := keystore.VerifyQuote(subject.AttestationKey, nonce[:], q)
	if err != nil {
		return nil, Refuse(quoteReason(err), "quote of replica %d: %v", x.Replica, err)
	}
	if claims.Slot != subject.Slot {
		return nil, Refuse(ReasonQuote, "quote of replica %d: it shows the approval counter of slot %d, and its keystore is in slot %d", x.Replica, claims.Slot, subject.Slot)
	}
	return claims, nil
}

// judge finds the approved state that the claims show. Operators approve what a machine measures; a
// quote shows the state after the replica claimed its boot (see [keystore.Capped]), since only then
// nobody else can open a secret in it. The refusal is about the state that comes nearest.
func (a *Attestation) judge(claims *keystore.Claims) (name string, r *Refusal) {
	values := make(map[int]Measurement, len(claims.PCRs))
	for _, v := range claims.PCRs {
		values[v.Index] = v.Digest
	}
	nearest := len(a.PCRs) + 1
	r = Refuse(ReasonPCR, "no boot state is approved")
	for i := range a.Approved {
		state := &a.Approved[i]
		if len(differing(a.PCRs, values, state.PCRs)) == 0 && !plant.Bug("cap-unchecked") {
			return "", Refuse(ReasonUnclaimed, "the quote shows state %q before it was claimed: another process could still open what is sealed in this boot", state.Name)
		}
		claimed := state.claimed(a.PCRs)
		wrong := differing(a.PCRs, values, claimed)
		if plant.Bug("cap-unchecked") && len(differing(a.PCRs, values, state.PCRs)) == 0 {
			wrong = nil
		}
		switch {
		case len(wrong) == 0 && claims.Firmware >= state.MinimumFirmware:
			return state.Name, nil
		case len(wrong) == 0:
			nearest = 0
			r = Refuse(ReasonFirmware, "the TPM's firmware %#x is older than %#x, which state %q asks for", claims.Firmware, state.MinimumFirmware, state.Name)
		case len(wrong) < nearest:
			nearest = len(wrong)
			r = differs(wrong[0], values, state.Name, claimed)
		}
	}
	return "", r
}

// claimed are the values of the policy's registers after the boot was claimed.
func (s *ApprovedState) claimed(pcrs []int) map[int]Measurement {
	out := make(map[int]Measurement, len(pcrs))
	for _, v := range keystore.Capped(s.Values(pcrs)) {
		out[v.Index] = v.Digest
	}
	return out
}

// differing lists the registers that are missing or hold another value than they should.
func differing(pcrs []int, values, want map[int]Measurement) []int {
	var out []int
	for _, p := range pcrs {
		if v, quoted := values[p]; !quoted || v != want[p] {
			out = append(out, p)
		}
	}
	return out
}

func differs(pcr int, values map[int]Measurement, state string, want map[int]Measurement) *Refusal {
	v, quoted := values[pcr]
	if !quoted {
		return Refuse(ReasonPCR, "PCR %d is not in the quote", pcr)
	}
	return Refuse(ReasonPCR, "PCR %d is not approved: it holds %.16s..., state %q gives %.16s...", pcr, v.String(), state, want[pcr].String())
}
