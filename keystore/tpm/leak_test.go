package tpm_test

import (
	"crypto"
	"crypto/rand"
	"net"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/tpm"
	"github.com/stretchr/testify/require"
)

// TestNothingLeaks: whatever an operation does, also when it fails, it leaves no
// object and no session in the TPM.
func TestNothingLeaks(t *testing.T) {
	dev, other := newTPM(t, ours), newTPM(t, theirs)
	s, dir := newStore(t, dev.URI())
	foreign, _ := newStore(t, other.URI())
	inventory := func() []uint32 {
		all, err := tpm.Inventory(t.Context(), dev.URI(), options(dir))
		require.NoError(t, err)
		return all
	}
	before := inventory()
	require.NoError(t, s.Seal(0, []byte("zero")))
	require.NoError(t, s.Seal(1, []byte("one")))
	require.NoError(t, s.Advance(1))
	e, err := foreign.Enrollment()
	require.NoError(t, err)
	cred, err := keystore.MakeCredential(rand.Reader, e, nonce)
	require.NoError(t, err)
	for range 5 { // more than the TPM has room for
		_, err = s.Unseal(1)
		require.NoError(t, err)
		_, err = s.Enrollment()
		require.NoError(t, err)
		_, err = s.ActivateCredential(cred)
		require.ErrorIs(t, err, keystore.ErrForeignDevice)
	}
	require.NoError(t, s.Claim())
	for range 5 {
		_, err = s.Quote(nonce)
		require.NoError(t, err)
		_, err = s.Identity().Sign(nil, nonce, crypto.SHA256)
		require.NoError(t, err)
		require.ErrorIs(t, openStore(t, dev.URI(), dir).Claim(), keystore.ErrClaimed)
	}
	require.NoError(t, s.Extend(14, [32]byte{1}))
	for range 5 {
		requireNotApproved(t, s, "")
	}
	require.Equal(t, before, inventory())
}

// TestExhaustedByOthers: other processes filled the TPM with objects and
// sessions and went away without flushing them.
func TestExhaustedByOthers(t *testing.T) {
	dev := newTPM(t, ours)
	s, _ := newStore(t, dev.URI())
	require.NoError(t, s.Seal(0, []byte("share")))
	fill := func() {
		c, err := net.Dial("unix", dev.Socket())
		require.NoError(t, err)
		defer func() { require.NoError(t, c.Close()) }()
		other := transport.FromReadWriteCloser(c)
		for err = nil; err == nil; {
			_, err = tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHNull, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(other)
		}
		require.ErrorIs(t, err, tpm2.TPMRCObjectMemory)
		for err = nil; err == nil; {
			_, _, err = tpm2.HMACSession(other, tpm2.TPMAlgSHA256, 16)
		}
		require.ErrorIs(t, err, tpm2.TPMRCSessionMemory)
	}
	fill()
	secret, err := s.Unseal(0)
	require.NoError(t, err)
	require.Equal(t, "share", string(secret))
	fill()
	require.NoError(t, s.Seal(1, []byte("share")))
	fill()
	require.NoError(t, s.Advance(1))
	fill()
	require.NoError(t, s.Claim())
	fill()
	_, err = s.Identity().Sign(nil, nonce, crypto.SHA256)
	require.NoError(t, err)
	fill()
	_, err = s.Quote(nonce)
	require.NoError(t, err)
}

// TestAnotherTPM: neither a directory nor a sealed blob opens on another TPM.
func TestAnotherTPM(t *testing.T) {
	dev, other := newTPM(t, ours), newTPM(t, theirs)
	s, dir := newStore(t, dev.URI())
	require.NoError(t, s.Seal(0, []byte("share")))
	_, err := tpm.Open(t.Context(), other.URI(), options(dir))
	require.ErrorIs(t, err, keystore.ErrForeignDevice)

	thief, thiefDir := newStore(t, other.URI())
	require.NoError(t, thief.Seal(0, []byte("own")))
	copySealed(t, dir, thiefDir)
	_, err = thief.Unseal(0)
	require.ErrorIs(t, err, keystore.ErrForeignDevice)
	var refused *keystore.RefusedError
	require.ErrorAs(t, err, &refused, "the other TPM refuses")

	gone := newTPM(t, ours)
	require.NoError(t, gone.Close())
	_, err = tpm.Open(t.Context(), gone.URI(), options(dir))
	require.ErrorIs(t, err, keystore.ErrUnavailable)
}
