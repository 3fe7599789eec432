package tpm_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/tpm"
	"github.com/stretchr/testify/require"
)

var nonce = bytes.Repeat([]byte{7}, 32)

// TestMeasuredBoot plays a launcher: what is measured, predicted, approved and
// quoted agree, and a share opens in the approved state only.
func TestMeasuredBoot(t *testing.T) {
	dev := newTPM(t, ours)
	dir := filepath.Join(t.TempDir(), "keystore")
	s, err := tpm.Init(t.Context(), dev.URI(), options(dir))
	require.NoError(t, err)
	require.NoError(t, s.Seal(1, []byte("share")))
	require.NoError(t, s.Advance(1))
	_, err = s.Unseal(1)
	require.ErrorIs(t, err, keystore.ErrNotApproved, "no state is approved yet")

	binary, configuration := sha256.Sum256([]byte("binary")), sha256.Sum256([]byte("configuration"))
	boot := func(measurements ...[32]byte) *keystore.Claims {
		require.NoError(t, dev.Reboot())
		for _, m := range measurements {
			require.NoError(t, tpm.Extend(t.Context(), dev.URI(), 14, m, options("")))
		}
		q, err := s.Quote(nonce)
		require.NoError(t, err)
		claims, err := keystore.VerifyQuote(s.AttestationKey(), nonce, q)
		require.NoError(t, err)
		return claims
	}
	before := boot()
	after := boot(binary, configuration)
	require.Equal(t, before.ResetCount+1, after.ResetCount, "the reboot is proven")
	require.True(t, after.Safe)
	require.NotZero(t, after.Firmware)
	last := after.PCRs[len(after.PCRs)-1]
	require.Equal(t, 14, last.Index)
	require.Equal(t, keystore.PredictPCR(binary, configuration), last.Digest)

	predicted := before.PCRs
	predicted[len(predicted)-1].Digest = keystore.PredictPCR(binary, configuration)
	approve(t, s, predicted)
	secret, err := s.Unseal(1)
	require.NoError(t, err)
	require.Equal(t, "share", string(secret))

	// After a change of a PCR, and after a boot of something else.
	require.NoError(t, s.Extend(14, sha256.Sum256([]byte("more"))))
	requireNotApproved(t, s, "PCRs [14] are not as approved")
	boot(sha256.Sum256([]byte("tampered")), configuration)
	requireNotApproved(t, s, "PCRs [14] are not as approved")
	boot(binary, configuration)
	secret, err = s.Unseal(1)
	require.NoError(t, err)
	require.Equal(t, "share", string(secret))

	// A power cut is a reset too; that the clock is not safe forbids nothing.
	require.NoError(t, dev.PowerCut())
	q, err := s.Quote(nonce)
	require.NoError(t, err)
	claims, err := keystore.VerifyQuote(s.AttestationKey(), nonce, q)
	require.NoError(t, err)
	require.Equal(t, after.ResetCount+3, claims.ResetCount)
	requireNotApproved(t, s, "")
}

func requireNotApproved(t *testing.T, s *tpm.Store, detail string) {
	t.Helper()
	_, err := s.Unseal(1)
	require.ErrorIs(t, err, keystore.ErrNotApproved)
	var refused *keystore.RefusedError
	require.ErrorAs(t, err, &refused, "it is the TPM that refuses")
	require.ErrorContains(t, err, detail)
}

// TestRevokedApproval: approvals of versions up to the present one are refused
// by the TPM after RevokeApprovals, and later ones are not.
func TestRevokedApproval(t *testing.T) {
	dev := newTPM(t, ours)
	s, _ := newStore(t, dev.URI())
	require.NoError(t, s.Seal(0, []byte("share")))
	require.NoError(t, s.Advance(1))
	require.NoError(t, s.Seal(1, []byte("share")))
	_, err := s.Unseal(1)
	require.NoError(t, err)
	st, err := s.Status()
	require.NoError(t, err)
	version, err := s.RevokeApprovals(st.ApprovalVersion)
	require.NoError(t, err)
	require.Greater(t, version, st.ApprovalVersion)
	requireNotApproved(t, s, "the approval is revoked")
	approvePresent(t, s)
	_, err = s.Unseal(1)
	require.NoError(t, err)
}

// TestForeignApproval: what the operator did not sign, or signed for others, is
// not taken.
func TestForeignApproval(t *testing.T) {
	dev := newTPM(t, ours)
	s, dir := newStore(t, dev.URI())
	values, err := s.ReadPCRs()
	require.NoError(t, err)
	a, err := keystore.Approve(rand.Reader, shared.operator, keystore.BootState{PCRs: values, Version: 1000})
	require.NoError(t, err)
	forged := *a
	forged.State.Version++
	require.ErrorIs(t, s.AddApproval(&forged), keystore.ErrInvalid)
	for _, state := range []keystore.BootState{{PCRs: values[1:], Version: 1000}, {PCRs: values, Version: 1000, Slot: 3}} {
		other, err := keystore.Approve(rand.Reader, shared.operator, state)
		require.NoError(t, err)
		require.Error(t, s.AddApproval(other))
	}

	// Written past the checks, a forged approval is not used either.
	data, err := forged.MarshalBinary()
	require.NoError(t, err)
	names, err := filepath.Glob(filepath.Join(dir, "approval-*"))
	require.NoError(t, err)
	require.Len(t, names, 1)
	require.NoError(t, os.WriteFile(names[0], data, 0o600))
	require.NoError(t, s.Seal(0, []byte("share")))
	_, err = s.Unseal(0)
	require.ErrorIs(t, err, keystore.ErrNotApproved)
}

// TestEnrollment proves which TPM holds the identity key, in two steps.
func TestEnrollment(t *testing.T) {
	dev, other := newTPM(t, ours), newTPM(t, theirs)
	s, _ := newStore(t, dev.URI())
	foreign, _ := newStore(t, other.URI())
	e, err := s.Enrollment()
	require.NoError(t, err)
	data, err := e.MarshalBinary()
	require.NoError(t, err)
	e, err = keystore.ParseEnrollment(data)
	require.NoError(t, err)

	key, err := keystore.VerifyIdentity(e)
	require.NoError(t, err)
	require.Equal(t, s.Identity().Public(), key)
	roots, err := shared.ca.Roots()
	require.NoError(t, err)
	info, err := keystore.VerifyEnrollment(e, roots, time.Now())
	require.NoError(t, err)
	require.Equal(t, &keystore.Device{Manufacturer: "id:00001014", Model: "swtpm", Software: true}, info)

	secret := bytes.Repeat([]byte{9}, 32)
	cred, err := keystore.MakeCredential(rand.Reader, e, secret)
	require.NoError(t, err)
	got, err := s.ActivateCredential(cred)
	require.NoError(t, err)
	require.Equal(t, secret, got)
	_, err = foreign.ActivateCredential(cred)
	require.ErrorIs(t, err, keystore.ErrForeignDevice)

	// Parts of two devices do not make one.
	f, err := foreign.Enrollment()
	require.NoError(t, err)
	for name, mix := range map[string]keystore.Enrollment{
		"identity":      {Identity: f.Identity, Attestation: e.Attestation, Certification: e.Certification, Signature: e.Signature},
		"attestation":   {Identity: e.Identity, Attestation: f.Attestation, Certification: e.Certification, Signature: e.Signature},
		"certification": {Identity: e.Identity, Attestation: f.Attestation, Certification: f.Certification, Signature: f.Signature},
		"signature":     {Identity: e.Identity, Attestation: e.Attestation, Certification: e.Certification, Signature: f.Signature},
		"swapped":       {Identity: e.Attestation, Attestation: e.Attestation, Certification: e.Certification, Signature: e.Signature},
	} {
		_, err := keystore.VerifyIdentity(&mix)
		require.ErrorIs(t, err, keystore.ErrInvalid, name)
	}
	swapped := *e
	swapped.Chain = f.Chain
	_, err = keystore.VerifyEnrollment(&swapped, roots, time.Now())
	require.ErrorIs(t, err, keystore.ErrInvalid)
}

// TestQuoteAttacks offers quotes that prove nothing.
func TestQuoteAttacks(t *testing.T) {
	dev, other := newTPM(t, ours), newTPM(t, theirs)
	s, _ := newStore(t, dev.URI())
	foreign, _ := newStore(t, other.URI())
	q, err := s.Quote(nonce)
	require.NoError(t, err)
	ak := s.AttestationKey()

	_, err = keystore.VerifyQuote(ak, bytes.Repeat([]byte{8}, 32), q)
	require.ErrorContains(t, err, "answers another nonce", "a replayed quote")
	_, err = keystore.VerifyQuote(foreign.AttestationKey(), nonce, q)
	require.ErrorContains(t, err, "not that of the attestation key")
	values := append([]keystore.PCRValue(nil), q.PCRs...)
	values[0].Digest[0] ^= 1
	_, err = keystore.VerifyQuote(ak, nonce, &keystore.Quote{Attest: q.Attest, Signature: q.Signature, PCRs: values})
	require.ErrorContains(t, err, "not the quoted ones")
	_, err = keystore.VerifyQuote(ak, nonce, &keystore.Quote{Attest: q.Attest, Signature: q.Signature, PCRs: q.PCRs[1:]})
	require.ErrorContains(t, err, "are quoted but")

	e, err := s.Enrollment()
	require.NoError(t, err)
	_, err = keystore.VerifyQuote(e.Identity, nonce, q)
	require.ErrorContains(t, err, "not a restricted signing key", "the identity key signs what it is given")
	_, err = keystore.VerifyQuote(ak, []byte(keystore.IdentityRef), &keystore.Quote{Attest: e.Certification, Signature: e.Signature, PCRs: q.PCRs})
	require.ErrorIs(t, err, keystore.ErrInvalid, "a certification is no quote")
}

// TestClearedTPM: after TPM2_Clear the attestation key can be made again with
// the same name, but resetCount has fallen and the identity is gone.
func TestClearedTPM(t *testing.T) {
	dev := newTPM(t, ours)
	s, dir := newStore(t, dev.URI())
	require.NoError(t, s.Seal(0, []byte("share")))
	require.NoError(t, dev.Reboot())
	require.NoError(t, dev.Reboot())
	before, err := s.Quote(nonce)
	require.NoError(t, err)
	out, err := exec.Command("tpm2_clear", "-T", "swtpm:path="+dev.Socket(), "-c", "p").CombinedOutput()
	require.NoError(t, err, "%s (run `apt-get install tpm2-tools`)", out)

	_, err = tpm.Open(t.Context(), dev.URI(), options(dir))
	require.ErrorIs(t, err, keystore.ErrForeignDevice)
	_, err = s.Unseal(0)
	require.Error(t, err)
	again, _ := newStore(t, dev.URI())
	require.Equal(t, s.AttestationKey(), again.AttestationKey(), "the endorsement seed survives")
	require.NotEqual(t, s.Identity().Public(), again.Identity().Public())
	after, err := again.Quote(nonce)
	require.NoError(t, err)
	b, err := keystore.VerifyQuote(s.AttestationKey(), nonce, before)
	require.NoError(t, err)
	a, err := keystore.VerifyQuote(s.AttestationKey(), nonce, after)
	require.NoError(t, err)
	require.Less(t, a.ResetCount, b.ResetCount, "what a verifier must take as an alarm")
}
