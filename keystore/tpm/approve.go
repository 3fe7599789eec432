package tpm

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/mutant"
)

// AddApproval implements keystore.Attester. It checks the signature, and that the approval is for
// this keystore's TPM, selection and slot, and not for a claimed boot. At most maxApprovals are
// kept: the caller removes none, the oldest version goes first.
func (s *Store) AddApproval(a *keystore.Approval) error {
	if err := a.Verify(s.operator); err != nil {
		return err
	}
	if err := s.fits(a); err != nil {
		return err
	}
	data, err := a.MarshalBinary()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return keystore.ErrClosed
	}
	known, err := s.approvals()
	if err != nil {
		return err
	}
	if claimedBefore(known, a.State.PCRs) {
		return fmt.Errorf("approval: %w: it is of an approved state after it was claimed, in which nothing may open: approve what is predicted, not what a running replica shows", keystore.ErrInvalid)
	}
	if err := s.dir.Write(approvalName(data), data); err != nil {
		return err
	}
	return s.dropApprovals()
}

// fits says why an approval is not for this keystore.
func (s *Store) fits(a *keystore.Approval) error {
	selection, err := keystore.SelectionOf(a.State.PCRs)
	if err != nil {
		return fmt.Errorf("approval: %w", err)
	}
	if selection != s.pcrs {
		return fmt.Errorf("approval: it is for PCRs %v, and this keystore is for PCRs %v", selection, s.pcrs)
	}
	if a.State.Slot != s.slot {
		return fmt.Errorf("approval: it is for slot %d, and this keystore is in slot %d", a.State.Slot, s.slot)
	}
	if a.State.Device != s.device && !mutant.Is(mutant.ApprovalsForAll) {
		return fmt.Errorf("approval: %w: it is for another TPM", keystore.ErrForeignDevice)
	}
	return nil
}

// approvals reads the approvals that the operator signed for this keystore, the
// latest version first. What else is under such a name is left alone.
func (s *Store) approvals() ([]*keystore.Approval, error) {
	names, err := s.dir.Names(approvalPrefix)
	if err != nil {
		return nil, err
	}
	var out []*keystore.Approval
	for _, name := range names {
		data, err := s.dir.Read(name)
		if errors.Is(err, keystore.ErrCorrupt) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if a, err := keystore.ParseApproval(data); err == nil && s.fits(a) == nil && a.Verify(s.operator) == nil {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b *keystore.Approval) int {
		return cmp.Compare(b.State.Version, a.State.Version)
	})
	return out, nil
}

// dropApprovals removes the approvals beyond the limit.
func (s *Store) dropApprovals() error {
	all, err := s.approvals()
	if err != nil || len(all) <= maxApprovals {
		return err
	}
	var names []string
	for _, a := range all[maxApprovals:] {
		data, err := a.MarshalBinary()
		if err != nil {
			return err
		}
		names = append(names, approvalName(data))
	}
	return s.dir.Remove(names...)
}

func approvalName(data []byte) string {
	sum := sha256.Sum256(data)
	return fmt.Sprintf("%s%x", approvalPrefix, sum[:8])
}

// RevokeApprovals implements keystore.Attester.
func (s *Store) RevokeApprovals(upTo uint64) (uint64, error) {
	var value uint64
	read := func(c *conn) (err error) {
		value, err = s.approvalCounter.read(c)
		return err
	}
	if err := s.run(read); err != nil {
		return 0, fmt.Errorf("revoke approvals: %w", err)
	}
	if upTo >= value+maxRevoked {
		return 0, fmt.Errorf("revoke approvals up to version %d: this TPM's version is %d, and no approval is that far ahead: name versions of this TPM", upTo, value)
	}
	reach := min(upTo+1, value+revokedAtOnce)
	if err := s.raise(s.approvalCounter, value, reach); err != nil {
		return 0, fmt.Errorf("revoke approvals: %w", err)
	}
	return max(value, reach), nil
}

// refusal is why the TPM did not accept any approval, in its own words.
type refusal struct {
	reason error // ErrNotApproved or ErrClaimed
	detail string
}

func (r *refusal) Error() string { return fmt.Sprintf("%v (%s)", r.reason, r.detail) }
func (r *refusal) Unwrap() error { return r.reason }

// approvedSession returns a policy session that proved one of the approvals, for a
// command whose parameters it encrypts as d says. Those that match the present PCRs
// come first; when none does, the TPM is asked about the latest all the same, so that
// it is the TPM that refuses.
func (s *Store) approvedSession(c *conn, approvals []*keystore.Approval, d direction) (tpm2.Session, func(), error) {
	if len(approvals) == 0 {
		return nil, nil, fmt.Errorf("%w: the directory holds no approval of any boot state: give it one (reseal order approve)", keystore.ErrNotApproved)
	}
	present, err := readPCRs(c, s.pcrs)
	if err != nil {
		return nil, nil, err
	}
	// PolicyNV is authorized by the counter's own authorization.
	read, endRead, err := tpm2.HMACSession(c, tpm2.TPMAlgSHA256, nonceSize, s.root.options(in, s.cfg.CounterAuth)...)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = endRead() }()
	session, end, err := s.root.policySession(c, d)
	if err != nil {
		return nil, nil, err
	}
	candidates := candidates(approvals, present)
	for i, a := range candidates {
		if i > 0 {
			if err := policyRestart(c, session.Handle()); err != nil {
				end()
				return nil, nil, err
			}
		}
		if err = s.proveApproval(c, session, a, read); err == nil {
			return session, end, nil
		}
		if !unapproved(err) {
			break
		}
	}
	end()
	if !unapproved(err) {
		return nil, nil, err
	}
	reason := keystore.ErrNotApproved
	if claimedBefore(approvals, present) {
		reason = keystore.ErrClaimed
	}
	return nil, nil, &refusal{reason, fmt.Sprintf("%v; %s", err, difference(candidates[0].State.PCRs, present))}
}

// claimedBefore reports whether PCRs are those of an approved state after Claim.
func claimedBefore(approvals []*keystore.Approval, present []keystore.PCRValue) bool {
	return slices.ContainsFunc(approvals, func(a *keystore.Approval) bool {
		return slices.Equal(keystore.Capped(a.State.PCRs), present)
	})
}

// candidates returns the approvals to try: those for the present PCRs, or, when
// there is none, the latest.
func candidates(approvals []*keystore.Approval, present []keystore.PCRValue) []*keystore.Approval {
	var matching []*keystore.Approval
	for _, a := range approvals {
		if slices.Equal(a.State.PCRs, present) {
			matching = append(matching, a)
		}
	}
	if len(matching) == 0 {
		return approvals[:1]
	}
	return matching
}

// unapproved reports the errors by which a TPM says that an approval does not
// hold: revoked (PolicyNV), not signed (VerifySignature), not for the present
// PCRs (PolicyAuthorize).
func unapproved(err error) bool {
	return errors.Is(err, tpm2.TPMRCPolicy) || errors.Is(err, tpm2.TPMRCSignature) || errors.Is(err, tpm2.TPMRCValue)
}

// proveApproval runs the policy of an approval in a session: the PCRs as they
// are, the approval's version not revoked, and the operator's signature, which
// replaces the digest so far by the name of the operator's key.
func (s *Store) proveApproval(c *conn, session tpm2.Session, a *keystore.Approval, read tpm2.Session) error {
	_, err := tpm2.PolicyPCR{PolicySession: session.Handle(), Pcrs: pcrSelection(s.pcrs)}.Execute(c)
	if err != nil {
		return fmt.Errorf("PolicyPCR: %w", err)
	}
	if err := s.approvalCounter.policy(c, session, read, tpm2.TPMEOUnsignedLE, a.State.Version); err != nil {
		return fmt.Errorf("the approval is revoked: PolicyNV: %w", err)
	}
	approved, err := a.State.Policy()
	if err != nil {
		return err
	}
	ref := keystore.ApprovalRef(s.device, s.slot)
	ticket, keyName, err := verifyInTPM(c, s.operatorPublic, sha256.Sum256(append(approved[:], ref[:]...)), a.Signature)
	if err != nil {
		return fmt.Errorf("the operator's signature: %w", err)
	}
	_, err = tpm2.PolicyAuthorize{
		PolicySession:  session.Handle(),
		ApprovedPolicy: tpm2.TPM2BDigest{Buffer: approved[:]},
		PolicyRef:      tpm2.TPM2BDigest{Buffer: ref[:]},
		KeySign:        keyName,
		CheckTicket:    *ticket,
	}.Execute(c)
	if err != nil {
		return fmt.Errorf("the boot state is not the approved one: PolicyAuthorize: %w", err)
	}
	return nil
}

// verifyInTPM lets the TPM verify a signature by a key and returns its ticket and the
// key's name.
func verifyInTPM(c *conn, public []byte, digest [sha256.Size]byte, sig []byte) (*tpm2.TPMTTKVerified, tpm2.TPM2BName, error) {
	key, err := tpm2.LoadExternal{
		InPublic:  tpm2.BytesAs2B[tpm2.TPMTPublic](public),
		Hierarchy: tpm2.TPMRHOwner,
	}.Execute(c)
	if err != nil {
		return nil, tpm2.TPM2BName{}, fmt.Errorf("load the public key: %w", err)
	}
	rsp, err := tpm2.VerifySignature{
		KeyHandle: tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name},
		Digest:    tpm2.TPM2BDigest{Buffer: digest[:]},
		Signature: tpmSignature(sig),
	}.Execute(c)
	if err = errors.Join(err, c.flush(key.ObjectHandle)); err != nil {
		return nil, tpm2.TPM2BName{}, fmt.Errorf("verify: %w", err)
	}
	return &rsp.Validation, key.Name, nil
}

// tpmSignature is the TPM's form of a signature, see keystore.EncodeSignature.
func tpmSignature(sig []byte) tpm2.TPMTSignature {
	return tpm2.TPMTSignature{
		SigAlg: tpm2.TPMAlgECDSA,
		Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
			Hash:       tpm2.TPMAlgSHA256,
			SignatureR: tpm2.TPM2BECCParameter{Buffer: sig[:len(sig)/2]},
			SignatureS: tpm2.TPM2BECCParameter{Buffer: sig[len(sig)/2:]},
		}),
	}
}

// difference says which PCRs are not as approved.
func difference(approved, present []keystore.PCRValue) string {
	var differ []int
	for i := range min(len(approved), len(present)) {
		if approved[i] != present[i] {
			differ = append(differ, approved[i].Index)
		}
	}
	if len(differ) == 0 {
		return "the PCRs are as approved"
	}
	return fmt.Sprintf("PCRs %v are not as approved", differ)
}
