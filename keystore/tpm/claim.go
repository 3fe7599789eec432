package tpm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/mutant"
)

// holder is what makes this process, in this boot, the one that the keys answer to:
// the private part of a key that is nowhere else, and a policy that names it.
type holder struct {
	key    *ecdsa.PrivateKey
	public []byte // TPMT_PUBLIC
	name   tpm2.TPM2BName
	reset  uint32 // resetCount of the boot
	policy [sha256.Size]byte

	anyBoot bool // only with a planted bug: the policy does not name the boot

	// Of a claim: what the gate key signed, as the TPM confirmed it, and the PCRs of
	// the claimed boot. Without a ticket it is that of the enrolment, which has the
	// attestation key alone.
	ticket *tpm2.TPMTTKVerified
	gate   tpm2.TPM2BName
	capped []keystore.PCRValue
}

// newHolder draws a key for the boot with this resetCount.
func (s *Store) newHolder(reset uint32) (*holder, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), s.rand)
	if err != nil {
		return nil, fmt.Errorf("draw the key of this boot: %w", err)
	}
	public, err := keystore.OperatorPublic(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	k, err := named(0, public)
	if err != nil {
		return nil, err
	}
	return &holder{key: key, public: public, name: k.name, reset: reset, policy: keystore.UsePolicy(reset, public)}, nil
}

// Claim implements keystore.Keystore. The order is what makes it safe to stop
// between any two steps: (1) a fresh key is drawn; (2) the gate key, which opens in
// an approved state only, signs that in this boot the keys answer to it; (3) the PCRs
// are capped, after which neither the gate key nor any sealed secret opens in this
// boot. Whatever stops before (3) leaves the boot unclaimed.
func (s *Store) Claim() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return keystore.ErrClosed
	}
	approvals, err := s.approvals()
	if err != nil {
		return err
	}
	err = s.operate(func(c *conn) error {
		reset, err := thisBoot(c)
		if err != nil {
			return err
		}
		if h := s.holder; h == nil || h.ticket == nil || h.reset != reset {
			if h, err = s.passGate(c, reset, approvals); err != nil {
				return err
			}
			s.holder = h
		}
		return s.capBoot(c)
	})
	if err != nil {
		return fmt.Errorf("claim this boot: %w", err)
	}
	return nil
}

// capBoot extends the cap, unless it was before an answer got lost.
func (s *Store) capBoot(c *conn) error {
	if mutant.Is(mutant.NoCap) {
		return nil
	}
	present, err := readPCRs(c, s.pcrs)
	if err != nil || slices.Equal(present, s.holder.capped) {
		return err
	}
	return extend(c, s.pcrs.Highest(), keystore.CapEvent)
}

// passGate lets the gate key sign the use policy of this boot.
func (s *Store) passGate(c *conn, reset uint32, approvals []*keystore.Approval) (*holder, error) {
	h, err := s.newHolder(reset)
	if err != nil {
		return nil, err
	}
	if mutant.Is(mutant.UseAnyBoot) {
		h.anyBoot, h.policy = true, keystore.UsePolicyOfAnyBoot(h.public)
	}
	present, err := readPCRs(c, s.pcrs)
	if err != nil {
		return nil, err
	}
	h.capped = keystore.Capped(present)
	approved, end, err := s.approvedSession(c, approvals, plain)
	if err != nil {
		var refusal *refusal
		if errors.As(err, &refusal) {
			return nil, fmt.Errorf("the TPM refuses: %w (%s)", refusal.reason, refusal.detail)
		}
		return nil, err
	}
	defer end()
	gate, unload, err := s.root.load(c, s.cfg.Gate)
	if err != nil {
		return nil, fmt.Errorf("load the gate key: %w", s.foreign(err))
	}
	digest := sha256.Sum256(append(h.policy[:], keystore.UseRef...))
	signed, err := tpm2.Sign{
		KeyHandle:  tpm2.AuthHandle{Handle: gate.handle, Name: gate.name, Auth: approved},
		Digest:     tpm2.TPM2BDigest{Buffer: digest[:]},
		InScheme:   ecdsaScheme(),
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(c)
	if err = errors.Join(err, unload()); err != nil {
		if errors.Is(err, tpm2.TPMRCPolicyFail) {
			err = fmt.Errorf("%w: the gate key was made for another operator key: %w", keystore.ErrNotApproved, err)
		}
		return nil, fmt.Errorf("sign for this boot: %w", err)
	}
	sig, err := signature(&signed.Signature)
	if err != nil {
		return nil, err
	}
	h.gate = gate.name
	h.ticket, _, err = verifyInTPM(c, s.cfg.Gate.Public, digest, sig)
	return h, err
}

// prove shows in a policy session that this process holds the boot. The nonce of the
// session is in what it signs, so that no proof does for another session.
func (h *holder) prove(c *conn, session tpm2.Session) error {
	if h.anyBoot {
		// a bug that is planted
	} else if err := policyResetCount(c, session.Handle(), h.reset); err != nil {
		if errors.Is(err, tpm2.TPMRCPolicy) {
			return fmt.Errorf("%w: the machine was reset or suspended since this process claimed it: reboot it", keystore.ErrUnclaimed)
		}
		return fmt.Errorf("PolicyCounterTimer: %w", err)
	}
	nonce := session.NonceTPM()
	statement := sha256.Sum256(binary.BigEndian.AppendUint32(slices.Clone(nonce.Buffer), 0)) // no expiration
	r, sig, err := ecdsa.Sign(nil, h.key, statement[:])
	if err != nil {
		return err
	}
	encoded, err := keystore.EncodeSignature(r, sig)
	if err != nil {
		return err
	}
	key, err := tpm2.LoadExternal{InPublic: tpm2.BytesAs2B[tpm2.TPMTPublic](h.public), Hierarchy: tpm2.TPMRHOwner}.Execute(c)
	if err != nil {
		return fmt.Errorf("load the key of this boot: %w", err)
	}
	_, err = tpm2.PolicySigned{
		AuthObject:    tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name},
		PolicySession: session.Handle(),
		NonceTPM:      nonce,
		Auth:          tpmSignature(encoded),
	}.Execute(c)
	if err = errors.Join(err, c.flush(key.ObjectHandle)); err != nil {
		return fmt.Errorf("PolicySigned: %w", err)
	}
	if h.ticket == nil {
		return nil
	}
	_, err = tpm2.PolicyAuthorize{
		PolicySession:  session.Handle(),
		ApprovedPolicy: tpm2.TPM2BDigest{Buffer: h.policy[:]},
		PolicyRef:      tpm2.TPM2BDigest{Buffer: []byte(keystore.UseRef)},
		KeySign:        h.gate,
		CheckTicket:    *h.ticket,
	}.Execute(c)
	if err != nil {
		return fmt.Errorf("PolicyAuthorize: %w", err)
	}
	return nil
}
