package tpm_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	boot := func(measurements ...[32]byte) {
		require.NoError(t, dev.Reboot())
		for _, m := range measurements {
			require.NoError(t, tpm.Extend(t.Context(), dev.URI(), 14, m, options("")))
		}
	}
	quote := func() *keystore.Claims {
		q, err := s.Quote(nonce)
		require.NoError(t, err)
		claims, err := keystore.VerifyQuote(s.AttestationKey(), nonce, q)
		require.NoError(t, err)
		return claims
	}
	boot()
	predicted, err := s.ReadPCRs()
	require.NoError(t, err)
	predicted[len(predicted)-1].Digest = keystore.PredictPCR(binary, configuration)
	approve(t, s, predicted)
	requireNotApproved(t, s, "PCRs [14] are not as approved")
	require.ErrorIs(t, s.Claim(), keystore.ErrNotApproved)

	boot(binary, configuration)
	_, err = s.Quote(nonce)
	require.ErrorIs(t, err, keystore.ErrUnclaimed)
	secret, err := s.Unseal(1)
	require.NoError(t, err)
	require.Equal(t, "share", string(secret))
	require.NoError(t, s.Claim())
	before := quote()
	require.Equal(t, keystore.Capped(predicted), before.PCRs)
	require.True(t, before.Safe)
	require.NotZero(t, before.Firmware)
	require.Less(t, before.SinceReset, uint64(60_000))

	// After a change of a PCR, and after a boot of something else.
	boot(binary, configuration)
	require.NoError(t, s.Extend(14, sha256.Sum256([]byte("more"))))
	requireNotApproved(t, s, "PCRs [14] are not as approved")
	boot(sha256.Sum256([]byte("tampered")), configuration)
	requireNotApproved(t, s, "PCRs [14] are not as approved")
	require.ErrorIs(t, s.Claim(), keystore.ErrNotApproved)
	boot(binary, configuration)
	secret, err = s.Unseal(1)
	require.NoError(t, err)
	require.Equal(t, "share", string(secret))

	// A power cut is a reset too; that the clock is not safe forbids nothing.
	require.NoError(t, dev.PowerCut())
	requireNotApproved(t, s, "")
	require.NoError(t, s.Extend(14, binary))
	require.NoError(t, s.Extend(14, configuration))
	require.NoError(t, s.Claim())
	after := quote()
	require.Equal(t, before.ResetCount+4, after.ResetCount, "the reboots are proven")
	require.Less(t, after.SinceReset, uint64(10_000))
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
	a, err := keystore.Approve(rand.Reader, shared.operator, keystore.BootState{Device: s.DeviceID(), PCRs: values, Version: 1000})
	require.NoError(t, err)
	forged := *a
	forged.State.Version++
	require.ErrorIs(t, s.AddApproval(&forged), keystore.ErrInvalid)
	for _, state := range []keystore.BootState{
		{Device: s.DeviceID(), PCRs: values[1:], Version: 1000}, {Device: s.DeviceID(), PCRs: values, Version: 1000, Slot: 3},
		{PCRs: values, Version: 1000}, {Device: [32]byte{1}, PCRs: values, Version: 1000},
	} {
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
	s, dir := newStore(t, dev.URI())
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
	for name, mix := range map[string]func(e *keystore.Enrollment){
		"identity":           func(e *keystore.Enrollment) { e.Identity = f.Identity },
		"attestation":        func(e *keystore.Enrollment) { e.Attestation = f.Attestation },
		"gate":               func(e *keystore.Enrollment) { e.Gate = f.Gate },
		"enroller":           func(e *keystore.Enrollment) { e.Enroller = f.Enroller },
		"boot":               func(e *keystore.Enrollment) { e.ResetCount++ },
		"certification":      func(e *keystore.Enrollment) { e.Certification = f.Certification },
		"gate certification": func(e *keystore.Enrollment) { e.GateCertification = f.GateCertification },
		"swapped":            func(e *keystore.Enrollment) { e.Identity, e.Certification = e.Gate, e.GateCertification },
		"other two": func(e *keystore.Enrollment) {
			e.Identity, e.Certification, e.Gate, e.GateCertification = f.Identity, f.Certification, f.Gate, f.GateCertification
		},
	} {
		mixed := *e
		mix(&mixed)
		_, err := keystore.VerifyIdentity(&mixed)
		require.ErrorIs(t, err, keystore.ErrInvalid, name)
	}
	require.NoError(t, keystore.VerifyGate(e, &shared.operator.PublicKey, 0))
	require.ErrorIs(t, keystore.VerifyGate(e, &shared.operator.PublicKey, 1), keystore.ErrInvalid)
	require.ErrorIs(t, keystore.VerifyGate(e, s.Identity().Public().(*ecdsa.PublicKey), 0), keystore.ErrInvalid)

	// Another process can enrol when it has claimed the boot.
	again := openStore(t, dev.URI(), dir)
	_, err = again.Enrollment()
	require.ErrorIs(t, err, keystore.ErrUnclaimed)
	require.NoError(t, again.Claim())
	claimed, err := again.Enrollment()
	require.NoError(t, err)
	_, err = keystore.VerifyIdentity(claimed)
	require.NoError(t, err)
	require.Equal(t, e.Identity, claimed.Identity)
	swapped := *e
	swapped.Chain = f.Chain
	_, err = keystore.VerifyEnrollment(&swapped, roots, time.Now())
	require.ErrorIs(t, err, keystore.ErrInvalid)
}

// TestQuoteAttacks offers quotes that prove nothing.
func TestQuoteAttacks(t *testing.T) {
	dev, other := newTPM(t, ours), newTPM(t, theirs)
	s, _ := claimedStore(t, dev.URI())
	foreign, _ := claimedStore(t, other.URI())
	q, err := s.Quote(nonce)
	require.NoError(t, err)
	second, err := s.Quote(bytes.Repeat([]byte{8}, 32))
	require.NoError(t, err)
	f, err := foreign.Quote(nonce)
	require.NoError(t, err)
	e, err := s.Enrollment()
	require.NoError(t, err)
	ak := s.AttestationKey()
	_, err = keystore.VerifyQuote(ak, nonce, q)
	require.NoError(t, err)

	_, err = keystore.VerifyQuote(ak, bytes.Repeat([]byte{8}, 32), q)
	require.ErrorContains(t, err, "answers another nonce", "a replayed quote")
	_, err = keystore.VerifyQuote(foreign.AttestationKey(), nonce, q)
	require.ErrorContains(t, err, "not that of the attestation key")
	_, err = keystore.VerifyQuote(e.Identity, nonce, q)
	require.ErrorContains(t, err, "not a restricted signing key", "the identity key signs what it is given")
	for name, forge := range map[string]func(q *keystore.Quote){
		"another PCR value":               func(q *keystore.Quote) { q.PCRs = slices.Clone(q.PCRs); q.PCRs[0].Digest[0] ^= 1 },
		"a PCR less":                      func(q *keystore.Quote) { q.PCRs = q.PCRs[1:] },
		"the time of another nonce":       func(q *keystore.Quote) { q.Time = second.Time },
		"the counter of another nonce":    func(q *keystore.Quote) { q.Counter = second.Counter },
		"the time of another TPM":         func(q *keystore.Quote) { q.Time = f.Time },
		"the counter of another TPM":      func(q *keystore.Quote) { q.Counter = f.Counter },
		"the counter for the time":        func(q *keystore.Quote) { q.Time = q.Counter },
		"the quote for the time":          func(q *keystore.Quote) { q.Time = keystore.Statement{Attest: q.Attest, Signature: q.Signature} },
		"no time":                         func(q *keystore.Quote) { q.Time = keystore.Statement{} },
		"no counter":                      func(q *keystore.Quote) { q.Counter = keystore.Statement{} },
		"a certification for the quote":   func(q *keystore.Quote) { q.Attest, q.Signature = e.Certification.Attest, e.Certification.Signature },
		"a certification for the counter": func(q *keystore.Quote) { q.Counter = e.Certification },
	} {
		forged := *q
		forge(&forged)
		_, err = keystore.VerifyQuote(ak, nonce, &forged)
		require.ErrorIs(t, err, keystore.ErrInvalid, name)
	}
}

// TestPartsOfTwoBoots: the time after a reboot does not go with the PCRs before it.
func TestPartsOfTwoBoots(t *testing.T) {
	dev := newTPM(t, ours)
	s, _ := claimedStore(t, dev.URI())
	before, err := s.Quote(nonce)
	require.NoError(t, err)
	require.NoError(t, dev.Reboot())
	require.NoError(t, s.Claim())
	after, err := s.Quote(nonce)
	require.NoError(t, err)
	before.Time = after.Time
	_, err = keystore.VerifyQuote(s.AttestationKey(), nonce, before)
	require.ErrorContains(t, err, "different boots")
	after.Counter = before.Counter
	_, err = keystore.VerifyQuote(s.AttestationKey(), nonce, after)
	require.ErrorContains(t, err, "different boots")
}

// TestSuspended: after a suspend the TPM's time counts from the resume, which would
// pass for a reset that never was. It ends the claim: the keys answer to nobody until
// a reset.
func TestSuspended(t *testing.T) {
	dev := newTPM(t, ours)
	s, _ := claimedStore(t, dev.URI())
	q, err := s.Quote(nonce)
	require.NoError(t, err)
	claims, err := keystore.VerifyQuote(s.AttestationKey(), nonce, q)
	require.NoError(t, err)
	require.Zero(t, claims.RestartCount)
	require.NoError(t, dev.Suspend())
	_, err = s.Quote(nonce)
	require.ErrorIs(t, err, keystore.ErrUnclaimed)
	require.ErrorIs(t, s.Claim(), keystore.ErrClaimed)
	require.NoError(t, dev.Reboot())
}

// TestClearedTPM: TPM2_Clear is refused to everybody who is not the firmware. When the
// firmware did it, the keystore is told apart from a broken one, and resetCount has
// fallen.
func TestClearedTPM(t *testing.T) {
	dev := newTPM(t, ours)
	s, dir := claimedStore(t, dev.URI())
	require.NoError(t, s.Seal(0, []byte("share")))
	require.NoError(t, dev.Reboot())
	require.NoError(t, dev.Reboot())
	require.NoError(t, s.Claim())
	before, err := s.Quote(nonce)
	require.NoError(t, err)
	b, err := keystore.VerifyQuote(s.AttestationKey(), nonce, before)
	require.NoError(t, err)

	tcti := []string{"-T", "swtpm:path=" + dev.Socket()}
	refused := func(name string, args ...string) {
		t.Helper()
		out, err := exec.Command("tpm2_"+name, append(tcti, args...)...).CombinedOutput()
		require.Error(t, err, "%s", out)
	}
	refused("clear", "-c", "l")
	refused("clearcontrol", "-C", "l", "c")
	refused("changeauth", "-c", "l", "mine")
	require.NoError(t, tpm.DisablePlatform(t.Context(), dev.URI(), options("")))
	require.NoError(t, tpm.DisablePlatform(t.Context(), dev.URI(), options("")), "twice is once")
	refused("clear", "-c", "p")
	refused("clearcontrol", "-C", "p", "c")
	_, err = s.Quote(nonce)
	require.NoError(t, err)

	// The firmware, after a reset.
	require.NoError(t, dev.Reboot())
	require.NoError(t, dev.Clear())
	_, err = tpm.Open(t.Context(), dev.URI(), options(dir))
	require.ErrorIs(t, err, keystore.ErrForeignDevice)
	require.ErrorIs(t, err, keystore.ErrCleared, "it is told from another TPM")
	require.ErrorContains(t, err, "order quarantine", "and what to do")
	_, err = s.Unseal(0)
	require.Error(t, err)
	_, err = tpm.Open(t.Context(), newTPM(t, theirs).URI(), options(dir))
	require.ErrorIs(t, err, keystore.ErrForeignDevice)
	require.NotErrorIs(t, err, keystore.ErrCleared)
	require.ErrorContains(t, err, "another TPM than the one")
	again, _ := claimedStore(t, dev.URI())
	require.NotEqual(t, s.Identity().Public(), again.Identity().Public())
	after, err := again.Quote(nonce)
	require.NoError(t, err)
	_, err = keystore.VerifyQuote(s.AttestationKey(), nonce, after)
	require.ErrorIs(t, err, keystore.ErrInvalid)
	a, err := keystore.VerifyQuote(again.AttestationKey(), nonce, after)
	require.NoError(t, err)
	require.Less(t, a.ResetCount, b.ResetCount, "what a verifier must take as an alarm")

	// With another keystore on it, it cannot be told any more; it does not ask for an authorization.
	_, err = tpm.Open(t.Context(), dev.URI(), options(dir))
	require.ErrorIs(t, err, keystore.ErrForeignDevice)
	require.NotErrorIs(t, err, keystore.ErrOwned)
	require.ErrorContains(t, err, "or it was cleared")
}
