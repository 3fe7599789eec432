package attest

import (
	"crypto/ecdsa"
	"crypto/ed25519"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
)

// Policy judges evidence. It is a pure function of the replicated state: every replica comes to the same verdict.
type Policy struct {
	Cluster bft.ClusterID
	Epoch   bft.Epoch
	Round   Round
	// Opened is the height of the block in which the round opened.
	Opened bft.Height
	// Scheme verifies the anchor's certificate: threshold signatures under the group key.
	Scheme      Verifier
	Attestation Attestation
}

// Verifier checks certificates of the current epoch; [bft.Scheme] is one.
type Verifier interface {
	Verify(messages [][]byte, signatures [][]byte) []bool
}

// Subject is what the log knows of the replica that the evidence is about.
type Subject struct {
	Identity       *ecdsa.PublicKey
	AttestationKey []byte
	// ResetCount is that of the last recovery, or of enrolment.
	ResetCount uint32
	// EpochKey is the replica's present key: the fresh one must be another. That another replica claims the same key is not asked: it could claim it
	// in time to have the owner refused, and has no use of it, since whatever the key signs names the signer.
	EpochKey ed25519.PublicKey
}

// Verdict is what accepted evidence proves.
type Verdict struct {
	// Attested is false when the policy asks for no quote: then only the identity key's possession is proven.
	Attested   bool
	ResetCount uint32
	// State names the approved boot state.
	State string
}

// Verify judges evidence and returns a verdict or the first refusal. A refusal with ReasonIdentity or ReasonRound must not be held against the
// replica: anybody can submit evidence in its name, or what it signed for another round.
func (p *Policy) Verify(e *Evidence, subject *Subject) (*Verdict, *Refusal) {
	if !e.signedBy(p.Cluster, subject.Identity) {
		return nil, Refuse(ReasonIdentity, "the evidence is not signed by the identity key of replica %d", e.Replica)
	}
	if e.Epoch != p.Epoch || e.Round != p.Round {
		return nil, Refuse(ReasonRound, "the evidence is for epoch %d, round %d; this is epoch %d, round %d", e.Epoch, e.Round, p.Epoch, p.Round)
	}
	if r := p.verifyAnchor(e); r != nil {
		return nil, r
	}
	if subject.EpochKey.Equal(e.EpochKey) {
		return nil, Refuse(ReasonKeyReused, "the epoch key is the one in use: replica %d must make a fresh one", e.Replica)
	}
	if !p.Attestation.Required {
		return &Verdict{}, nil
	}
	return p.verifyQuote(e, subject)
}

// verifyAnchor checks that the anchor was notarized in this epoch, and not before the round opened.
func (p *Policy) verifyAnchor(e *Evidence) *Refusal {
	a, s := &e.Anchor, e.Certificate.Statement
	if s != (bft.Statement{Epoch: a.Epoch, View: a.View, Kind: bft.Notarize, Block: a.Digest()}) {
		return Refuse(ReasonAnchor, "the anchor's certificate is not a notarization of its header")
	}
	if a.Epoch != p.Epoch || a.Height < p.Opened {
		return Refuse(ReasonStaleAnchor, "the anchor at height %d of epoch %d is from before the round, which opened at height %d of epoch %d",
			a.Height, a.Epoch, p.Opened, p.Epoch)
	}
	if ok := p.Scheme.Verify([][]byte{s.Bytes(p.Cluster)}, [][]byte{e.Certificate.Signature}); len(ok) != 1 || !ok[0] {
		return Refuse(ReasonCertificate, "the anchor's certificate does not verify under the group key")
	}
	return nil
}

// verifyQuote checks what the TPM says.
func (p *Policy) verifyQuote(e *Evidence, subject *Subject) (*Verdict, *Refusal) {
	if len(e.Quote) == 0 {
		return nil, Refuse(ReasonNoQuote, "the evidence holds no quote, and the policy requires one")
	}
	q, err := keystore.ParseQuote(e.Quote)
	if err != nil {
		return nil, Refuse(ReasonQuote, "%v", err)
	}
	nonce := Nonce(p.Cluster, e.Replica, e.Epoch, e.Round, e.Certificate.Signature, e.EpochKey)
	claims, err := keystore.VerifyQuote(subject.AttestationKey, nonce[:], q)
	if err != nil {
		return nil, Refuse(quoteReason(q, subject.AttestationKey, nonce[:]), "quote of replica %d: %v", e.Replica, err)
	}
	state, r := p.Attestation.judge(claims)
	if r != nil {
		return nil, r
	}
	// TPMs keep Safe false after an unclean stop, also over later orderly boots: it says nothing about this boot.
	switch {
	case claims.ResetCount < subject.ResetCount:
		return nil, Refuse(ReasonResetCountFell, "the reset count fell from %d to %d: the TPM was cleared or replaced, enrol it again", subject.ResetCount, claims.ResetCount)
	case claims.ResetCount == subject.ResetCount:
		return nil, Refuse(ReasonNoReboot, "the reset count is still %d: the machine did not reboot since its last recovery", claims.ResetCount)
	}
	return &Verdict{Attested: true, ResetCount: claims.ResetCount, State: state}, nil
}

// judge finds the approved state that the claims show. Its refusal is about the state that comes nearest.
func (a *Attestation) judge(claims *keystore.Claims) (name string, r *Refusal) {
	values := make(map[int]Measurement, len(claims.PCRs))
	for _, v := range claims.PCRs {
		values[v.Index] = v.Digest
	}
	nearest := len(a.PCRs) + 1
	r = Refuse(ReasonPCR, "no boot state is approved")
	for i := range a.Approved {
		state := &a.Approved[i]
		differing := state.differing(a.PCRs, values)
		switch {
		case len(differing) == 0 && claims.Firmware >= state.MinimumFirmware:
			return state.Name, nil
		case len(differing) == 0:
			nearest = 0
			r = Refuse(ReasonFirmware, "the TPM's firmware %#x is older than %#x, which state %q asks for", claims.Firmware, state.MinimumFirmware, state.Name)
		case len(differing) < nearest:
			nearest = len(differing)
			r = differs(differing[0], values, state)
		}
	}
	return "", r
}

// differing lists the registers that are missing or hold another value than the state gives.
func (s *ApprovedState) differing(pcrs []int, values map[int]Measurement) []int {
	var out []int
	for _, p := range pcrs {
		if v, quoted := values[p]; !quoted || v != s.PCRs[p] {
			out = append(out, p)
		}
	}
	return out
}

func differs(pcr int, values map[int]Measurement, state *ApprovedState) *Refusal {
	v, quoted := values[pcr]
	if !quoted {
		return Refuse(ReasonPCR, "PCR %d is not in the quote", pcr)
	}
	return Refuse(ReasonPCR, "PCR %d is not approved: it holds %.16s..., state %q has %.16s...", pcr, v.String(), state.Name, state.PCRs[pcr].String())
}
