package tpm_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/swtpm"
	"github.com/reseal-bft/reseal/keystore/tpm"
	"github.com/stretchr/testify/require"
)

// rawTPM is the TPM in the hands of another user of the machine, who is in its group.
func rawTPM(t *testing.T, dev *swtpm.TPM) transport.TPM {
	t.Helper()
	var c net.Conn
	require.Eventually(t, func() (there bool) { // a socket takes few clients at a time
		var err error
		c, err = net.Dial("unix", dev.Socket())
		return err == nil
	}, time.Minute, time.Millisecond)
	t.Cleanup(func() { _ = c.Close() })
	return transport.FromReadWriteCloser(c)
}

// keysOf returns the keys of a directory as its thief has them.
func keysOf(t *testing.T, dir string) (gate, identity struct{ Public, Private []byte }) {
	t.Helper()
	var c struct {
		Gate, Identity struct{ Public, Private []byte }
	}
	data, err := os.ReadFile(filepath.Join(dir, "keystore.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &c))
	return c.Gate, c.Identity
}

// TestOtherUser has the TPM's socket, and a copy of the directory, after the replica
// claimed the boot: by commands of his own, by another process's tools, by our code, and
// through a relay. The TPM refuses him every signature and every secret.
func TestOtherUser(t *testing.T) {
	dev := newTPM(t, ours)
	s, dir := newStore(t, dev.URI())
	require.NoError(t, s.Seal(0, []byte("share")))
	require.NoError(t, s.Claim())
	stolen := filepath.Join(t.TempDir(), "stolen")
	require.NoError(t, os.CopyFS(stolen, os.DirFS(dir)))
	digest := sha256.Sum256([]byte("a TLS credential of his"))

	t.Run("another process", func(t *testing.T) {
		out, err := exec.Command("tpm2_quote", "-T", "swtpm:path="+dev.Socket(), "-c", "0x81005201", "-l", "sha256:14",
			"-q", "00112233445566778899aabbccddeeff", "-m", filepath.Join(t.TempDir(), "m"), "-s", filepath.Join(t.TempDir(), "s")).CombinedOutput()
		require.Error(t, err, "%s", out)
		require.Contains(t, string(out), "tpm", "it is the TPM that refuses")
	})
	t.Run("our code", func(t *testing.T) { requireNothing(t, dev.URI(), stolen) })
	t.Run("a relay", func(t *testing.T) {
		requireNothing(t, relay(t, dev), stolen)
	})
	t.Run("commands of his own", func(t *testing.T) {
		raw := rawTPM(t, dev)
		gate, identity := keysOf(t, stolen)
		for name, key := range map[string]struct{ Public, Private []byte }{"gate": gate, "identity": identity} {
			loaded, err := tpm2.Load{
				ParentHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(tpm.RootHandle), Auth: tpm2.PasswordAuth(nil), Name: rootName(t, raw)},
				InPrivate:    tpm2.TPM2BPrivate{Buffer: key.Private},
				InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](key.Public),
			}.Execute(raw)
			require.NoError(t, err, "it loads for everybody, and answers to nobody")
			for how, session := range map[string]tpm2.Session{
				"password": tpm2.PasswordAuth(nil), "hmac": tpm2.HMAC(tpm2.TPMAlgSHA256, 16),
				"empty policy": tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(transport.TPM, tpm2.TPMISHPolicy, tpm2.TPM2BNonce) error { return nil }),
			} {
				_, err := tpm2.Sign{
					KeyHandle:  tpm2.AuthHandle{Handle: loaded.ObjectHandle, Name: loaded.Name, Auth: session},
					Digest:     tpm2.TPM2BDigest{Buffer: digest[:]},
					InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256})},
					Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
				}.Execute(raw)
				require.Error(t, err, "%s by %s", name, how)
			}
			_, err = tpm2.FlushContext{FlushHandle: loaded.ObjectHandle}.Execute(raw)
			require.NoError(t, err)
		}
	})
	// Not even the operator opens a claimed boot by mistake.
	values, err := s.ReadPCRs()
	require.NoError(t, err)
	a, err := keystore.Approve(rand.Reader, shared.operator, keystore.BootState{Device: s.DeviceID(), PCRs: values, Version: 1000})
	require.NoError(t, err)
	require.ErrorIs(t, s.AddApproval(a), keystore.ErrInvalid)

	// Nothing of it hindered the replica.
	_, err = s.Identity().Sign(nil, digest[:], crypto.SHA256)
	require.NoError(t, err)
	_, err = s.Quote(nonce)
	require.NoError(t, err)
}

func rootName(t *testing.T, raw transport.TPM) tpm2.TPM2BName {
	t.Helper()
	rsp, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(tpm.RootHandle)}.Execute(raw)
	require.NoError(t, err)
	return rsp.Name
}

// requireNothing opens a copy of a claimed keystore and gets nothing of it, by the TPM's
// own refusal where it is asked.
func requireNothing(t *testing.T, uri, dir string) {
	t.Helper()
	other := openStore(t, uri, dir)
	_, err := other.Unseal(0)
	var refused *keystore.RefusedError
	require.ErrorAs(t, err, &refused)
	digest := sha256.Sum256(nil)
	_, err = other.Identity().Sign(nil, digest[:], crypto.SHA256)
	require.ErrorIs(t, err, keystore.ErrUnclaimed)
	_, err = other.Quote(nonce)
	require.ErrorIs(t, err, keystore.ErrUnclaimed)
}

// TestWithoutDirectory: with the socket and the genesis alone there is nothing to be.
func TestWithoutDirectory(t *testing.T) {
	dev := newTPM(t, ours)
	s, dir := claimedStore(t, dev.URI())
	o := options(filepath.Join(t.TempDir(), "new"))
	o.Adopt = true
	_, err := tpm.Init(t.Context(), dev.URI()+"?slot=1", o)
	require.ErrorIs(t, err, keystore.ErrOwned)
	require.ErrorContains(t, err, "owner-auth-source")
	other, err := tpm.Init(t.Context(), asOwner(dev.URI()+"?slot=1", dir), o)
	require.NoError(t, err, "the owner of the machine may make another keystore, which is another replica")
	require.NotEqual(t, s.Identity().Public(), other.Identity().Public())
	require.NotEqual(t, s.AttestationKey(), other.AttestationKey())
	e, err := other.Enrollment()
	require.NoError(t, err)
	require.Equal(t, other.AttestationKey(), e.Attestation)
}

// TestEvicted: whatever the owner of the machine removes from the TPM, the keys are the
// same afterwards, once he lends his authorization. Without the counters the sealed share
// and the approvals are over, which the group and the operator give again.
func TestEvicted(t *testing.T) {
	dev := newTPM(t, ours)
	s, dir := newStore(t, dev.URI())
	require.NoError(t, s.Seal(0, []byte("share")))
	auth, err := os.ReadFile(operatorsFile(dir))
	require.NoError(t, err)
	tcti := []string{"-T", "swtpm:path=" + dev.Socket(), "-P", strings.TrimSpace(string(auth))}
	const root, attestation = "0x81000001", "0x81005201"
	evict := func(handles ...string) {
		for _, h := range handles {
			out, err := exec.Command("tpm2_evictcontrol", append(tcti, "-C", "o", "-c", h)...).CombinedOutput()
			require.NoError(t, err, "%s", out)
		}
	}
	evict(root, attestation)
	secret, err := s.Unseal(0)
	require.NoError(t, err, "while the process that made it runs, which knows the authorization")
	require.Equal(t, "share", string(secret))
	evict(root)
	_, err = tpm.Open(t.Context(), dev.URI(), options(dir))
	require.ErrorIs(t, err, keystore.ErrOwned)
	require.ErrorContains(t, err, "owner-auth-source", "the error says how to mend it")
	openStore(t, asOwner(dev.URI(), dir), dir)
	secret, err = openStore(t, dev.URI(), dir).Unseal(0)
	require.NoError(t, err, "once is enough")
	require.Equal(t, "share", string(secret))
	require.NoError(t, s.Claim())
	_, err = s.Quote(nonce)
	require.NoError(t, err)
	evict(root, attestation)
	_, err = s.Quote(nonce)
	require.NoError(t, err)
	ak := s.AttestationKey()

	require.NoError(t, dev.Reboot())
	evict(root, attestation)
	for _, index := range []string{"0x01805200", "0x01805201"} {
		tool(t, "nvundefine", append(tcti, "-C", "o", index)...)
	}
	s = openStore(t, asOwner(dev.URI(), dir), dir)
	require.Equal(t, ak, s.AttestationKey())
	require.ErrorIs(t, s.Claim(), keystore.ErrNotApproved, "the new counter is past the approvals")
	approvePresent(t, s)
	_, err = s.Unseal(0)
	require.ErrorIs(t, err, keystore.ErrErased)
	require.NoError(t, s.Seal(0, []byte("the next share")))
	secret, err = s.Unseal(0)
	require.NoError(t, err)
	require.Equal(t, "the next share", string(secret))
	require.NoError(t, s.Claim())
	q, err := s.Quote(nonce)
	require.NoError(t, err)
	_, err = keystore.VerifyQuote(ak, nonce, q)
	require.NoError(t, err)
}

// TestOtherRoot puts a storage key of the intruder's, whose private part he knows, where
// the storage root key was: nothing is sealed under it, and the keystore finds its own.
func TestOtherRoot(t *testing.T) {
	dev := newTPM(t, ours)
	s, dir := newStore(t, dev.URI())
	require.NoError(t, s.Close())
	giveUp(t, dev, dir)
	const root = tpm2.TPMHandle(tpm.RootHandle)
	var made *tpm2.CreatePrimaryResponse
	t.Run("exchange", func(t *testing.T) {
		raw := rawTPM(t, dev)
		template := tpm2.ECCSRKTemplate
		template.ObjectAttributes.FixedTPM, template.ObjectAttributes.FixedParent = false, false
		var err error
		made, err = tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(template)}.Execute(raw)
		require.NoError(t, err)
		for _, key := range []tpm2.NamedHandle{{Handle: root, Name: rootName(t, raw)}, {Handle: made.ObjectHandle, Name: made.Name}} {
			_, err = tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: key, PersistentHandle: root}.Execute(raw)
			require.NoError(t, err)
		}
		_, err = tpm2.FlushContext{FlushHandle: made.ObjectHandle}.Execute(raw)
		require.NoError(t, err)
	})

	again := openStore(t, dev.URI(), dir)
	require.NoError(t, again.Seal(0, []byte("share")))
	secret, err := again.Unseal(0)
	require.NoError(t, err)
	require.Equal(t, "share", string(secret))

	// Named in the directory too, it is not what the genesis registered, nor any root.
	public := made.OutPublic.Bytes()
	all := fields(t, dir)
	all["root"], err = json.Marshal(public)
	require.NoError(t, err)
	writeFields(t, dir, all)
	for _, registered := range [][]byte{nil, []byte("another")} {
		o := options(dir)
		o.Root = registered
		_, err = tpm.Open(t.Context(), dev.URI(), o)
		require.ErrorIs(t, err, keystore.ErrForeignDevice)
	}
}

// TestRaisedCounter: who had the counters' authorization once (it is in the directory) raises the
// approval counter far, so that no approval holds. An approval for where it is now does, and a
// revocation counts on in as many calls as it takes.
func TestRaisedCounter(t *testing.T) {
	dev := newTPM(t, ours)
	s, dir := newStore(t, dev.URI())
	st, err := s.Status()
	require.NoError(t, err)
	const by = 600
	calls := 0
	for reached := st.ApprovalVersion; reached < st.ApprovalVersion+by; calls++ {
		reached, err = s.RevokeApprovals(st.ApprovalVersion + by - 1)
		require.NoError(t, err)
	}
	require.Equal(t, 3, calls)
	require.NoError(t, dev.Reboot())
	s = openStore(t, dev.URI(), dir)
	require.ErrorIs(t, s.Claim(), keystore.ErrNotApproved)
	now, err := s.Status()
	require.NoError(t, err)
	require.Equal(t, st.ApprovalVersion+by, now.ApprovalVersion)
	approvePresent(t, s)
	require.NoError(t, s.Claim())
	_, err = s.Quote(nonce)
	require.NoError(t, err)
}

// TestApprovalOfAnotherTPM: an approval for a TPM whose counter is ahead does not outlive
// its revocation on one whose counter is behind.
func TestApprovalOfAnotherTPM(t *testing.T) {
	behind, ahead := newTPM(t, ours), newTPM(t, theirs)
	s, dir := newStore(t, behind.URI())
	far, farDir := newStore(t, ahead.URI())
	st, err := far.Status()
	require.NoError(t, err)
	_, err = far.RevokeApprovals(st.ApprovalVersion + 20)
	require.NoError(t, err)
	approvePresent(t, far) // the same boot state, of a version that is far ahead of the other TPM's
	st, err = s.Status()
	require.NoError(t, err)
	revoked, err := s.RevokeApprovals(st.ApprovalVersion)
	require.NoError(t, err)
	again, err := s.RevokeApprovals(st.ApprovalVersion)
	require.NoError(t, err)
	require.Equal(t, revoked, again, "it is idempotent")
	st, err = s.Status()
	require.NoError(t, err)
	_, err = s.RevokeApprovals(st.ApprovalVersion + 1<<40)
	require.Error(t, err)
	names, err := filepath.Glob(filepath.Join(farDir, "approval-*"))
	require.NoError(t, err)
	for _, name := range names {
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.Base(name)), data, 0o600))
	}
	require.ErrorIs(t, s.Claim(), keystore.ErrNotApproved)
}
