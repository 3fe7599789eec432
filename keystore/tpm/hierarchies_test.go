package tpm_test

import (
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/swtpm"
	"github.com/reseal-bft/reseal/keystore/tpm"
)

// command is one that another user of the TPM sends: it is authorized by a hierarchy whose
// authorization he takes to be empty.
type command struct {
	name    string
	code    tpm2.TPMCC
	handles []tpm2.TPMHandle // the first is the hierarchy
	auths   int              // 1 if 0
	body    []byte
}

// bytesOf concatenates numbers, big endian, and byte strings.
func bytesOf(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		if s, ok := p.([]byte); ok {
			b = append(b, s...)
			continue
		}
		b, _ = binary.Append(b, binary.BigEndian, p)
	}
	return b
}

func sized(b []byte) []byte { return bytesOf(uint16(len(b)), b) }

// send sends a command with empty passwords.
func (x *command) send(raw transport.TPM) error {
	var handles, auths []byte
	for _, h := range x.handles {
		handles = bytesOf(handles, uint32(h))
	}
	for range max(x.auths, 1) {
		auths = bytesOf(auths, uint32(tpm2.TPMRSPW), uint16(0), uint8(0), uint16(0))
	}
	rest := bytesOf(handles, uint32(len(auths)), auths, x.body)
	rsp, err := raw.Send(bytesOf(uint16(0x8002), uint32(10+len(rest)), uint32(x.code), rest))
	if err != nil {
		return err
	}
	if rc := tpm2.TPMRC(binary.BigEndian.Uint32(rsp[6:])); rc != tpm2.TPMRCSuccess {
		return rc
	}
	return nil
}

const (
	owner       = tpm2.TPMRHOwner
	endorsement = tpm2.TPMRHEndorsement
	lockout     = tpm2.TPMRHLockout
	platform    = tpm2.TPMRHPlatform
	null        = tpm2.TPMRHNull
)

// hierarchyCommands are the commands of TPM 2.0 Part 3 that the owner, endorsement or
// lockout hierarchy authorizes.
func hierarchyCommands() []command {
	primary := bytesOf(sized(bytesOf(uint16(0), uint16(0))), sized(tpm2.Marshal(tpm2.ECCSRKTemplate)), uint16(0), uint32(0))
	counter := tpm2.Marshal(tpm2.TPMSNVPublic{NVIndex: 0x01805100, NameAlg: tpm2.TPMAlgSHA256, DataSize: 8,
		Attributes: tpm2.TPMANV{NT: tpm2.TPMNTCounter, AuthWrite: true, AuthRead: true}})
	const root, attestation, epochs, approvals = 0x81000001, 0x81005201, 0x01805200, 0x01805201
	mine := []byte("mine")
	noPolicy := bytesOf(sized(make([]byte, 32)), uint16(tpm2.TPMAlgSHA256))
	all := []command{
		{name: "EvictControl of the root key", code: tpm2.TPMCCEvictControl, handles: []tpm2.TPMHandle{owner, root}, body: bytesOf(uint32(root))},
		{name: "EvictControl of the attestation key", code: tpm2.TPMCCEvictControl, handles: []tpm2.TPMHandle{owner, attestation}, body: bytesOf(uint32(attestation))},
		{name: "NV_UndefineSpace of the epochs", code: tpm2.TPMCCNVUndefineSpace, handles: []tpm2.TPMHandle{owner, epochs}},
		{name: "NV_UndefineSpace of the approvals", code: tpm2.TPMCCNVUndefineSpace, handles: []tpm2.TPMHandle{owner, approvals}},
		{name: "NV_DefineSpace", code: tpm2.TPMCCNVDefineSpace, handles: []tpm2.TPMHandle{owner}, body: bytesOf(sized(nil), sized(counter))},
		{name: "NV_GlobalWriteLock", code: tpm2.TPMCCNVGlobalWriteLock, handles: []tpm2.TPMHandle{owner}},
		{name: "ClockSet", code: tpm2.TPMCCClockSet, handles: []tpm2.TPMHandle{owner}, body: bytesOf(uint64(1) << 50)},
		{name: "ClockRateAdjust", code: tpm2.TPMCCClockRateAdjust, handles: []tpm2.TPMHandle{owner}, body: bytesOf(uint8(1))},
		{name: "SetCommandCodeAuditStatus", code: tpm2.TPMCCSetCommandCodeAuditStatus, handles: []tpm2.TPMHandle{owner},
			body: bytesOf(uint16(tpm2.TPMAlgNull), uint32(1), uint32(tpm2.TPMCCQuote), uint32(0))},
		{name: "GetCommandAuditDigest", code: 0x133, handles: []tpm2.TPMHandle{endorsement, null}, auths: 2, body: bytesOf(sized(nil), uint16(tpm2.TPMAlgNull))},
		{name: "GetTime", code: tpm2.TPMCCGetTime, handles: []tpm2.TPMHandle{endorsement, null}, auths: 2, body: bytesOf(sized(nil), uint16(tpm2.TPMAlgNull))},
		{name: "Clear", code: tpm2.TPMCCClear, handles: []tpm2.TPMHandle{lockout}},
		{name: "ClearControl", code: tpm2.TPMCCClearControl, handles: []tpm2.TPMHandle{lockout}, body: []byte{0}},
		{name: "DictionaryAttackLockReset", code: tpm2.TPMCCDictionaryAttackLockReset, handles: []tpm2.TPMHandle{lockout}},
		{name: "DictionaryAttackParameters", code: tpm2.TPMCCDictionaryAttackParameters, handles: []tpm2.TPMHandle{lockout}, body: bytesOf(uint32(1), uint32(0), uint32(0))},
	}
	for name, h := range map[string]tpm2.TPMHandle{"owner": owner, "endorsement": endorsement, "lockout": lockout} {
		all = append(all,
			command{name: "HierarchyChangeAuth of the " + name, code: tpm2.TPMCCHierarchyChanegAuth, handles: []tpm2.TPMHandle{h}, body: sized(mine)},
			command{name: "SetPrimaryPolicy of the " + name, code: tpm2.TPMCCSetPrimaryPolicy, handles: []tpm2.TPMHandle{h}, body: noPolicy})
		if h != lockout {
			all = append(all,
				command{name: "CreatePrimary of the " + name, code: tpm2.TPMCCCreatePrimary, handles: []tpm2.TPMHandle{h}, body: primary},
				command{name: "CreateLoaded of the " + name, code: tpm2.TPMCCCreateLoaded, handles: []tpm2.TPMHandle{h},
					body: bytesOf(sized(bytesOf(uint16(0), uint16(0))), sized(tpm2.Marshal(tpm2.ECCSRKTemplate)))},
				command{name: "HierarchyControl of the " + name, code: tpm2.TPMCCHierarchyControl, handles: []tpm2.TPMHandle{h}, body: bytesOf(uint32(h), uint8(0))})
		}
	}
	return all
}

// platformCommands are those that the firmware keeps to itself.
func platformCommands() []command {
	return []command{
		{name: "Clear", code: tpm2.TPMCCClear, handles: []tpm2.TPMHandle{platform}},
		{name: "ClearControl", code: tpm2.TPMCCClearControl, handles: []tpm2.TPMHandle{platform}, body: []byte{0}},
		{name: "ChangeEPS", code: tpm2.TPMCCChangeEPS, handles: []tpm2.TPMHandle{platform}},
		{name: "ChangePPS", code: tpm2.TPMCCChangePPS, handles: []tpm2.TPMHandle{platform}},
		{name: "HierarchyControl", code: tpm2.TPMCCHierarchyControl, handles: []tpm2.TPMHandle{platform}, body: bytesOf(uint32(owner), uint8(0))},
		{name: "HierarchyChangeAuth", code: tpm2.TPMCCHierarchyChanegAuth, handles: []tpm2.TPMHandle{platform}, body: sized([]byte("mine"))},
		{name: "NV_UndefineSpace", code: tpm2.TPMCCNVUndefineSpace, handles: []tpm2.TPMHandle{platform, 0x01805200}},
		{name: "ClockSet", code: tpm2.TPMCCClockSet, handles: []tpm2.TPMHandle{platform}, body: bytesOf(uint64(1) << 50)},
	}
}

// requireReplica checks that the replica does all it does, before and after a reset.
func requireReplica(t *testing.T, dev *swtpm.TPM, s *tpm.Store, dir string, epoch uint64) {
	t.Helper()
	digest := sha256.Sum256(nil)
	works := func(s *tpm.Store) {
		t.Helper()
		_, err := s.Identity().Sign(nil, digest[:], crypto.SHA256)
		require.NoError(t, err)
		q, err := s.Quote(nonce)
		require.NoError(t, err)
		_, err = keystore.VerifyQuote(s.AttestationKey(), nonce, q)
		require.NoError(t, err)
	}
	works(s)
	require.NoError(t, s.Seal(epoch+1, []byte("next")))
	require.NoError(t, s.Advance(epoch+1))
	require.NoError(t, dev.Reboot())
	s = openStore(t, dev.URI(), dir)
	secret, err := s.Unseal(epoch + 1)
	require.NoError(t, err)
	require.Equal(t, "next", string(secret))
	require.NoError(t, s.Claim())
	works(s)
}

// TestHierarchies: another user of the TPM sends every command that the owner, endorsement,
// lockout or platform hierarchy authorizes, and the replica does not notice. On a TPM whose
// hierarchies have no authorization each of the commands does what it is meant to.
func TestHierarchies(t *testing.T) {
	dev := newTPM(t, ours)
	made, dir := newStore(t, dev.URI())
	require.NoError(t, made.Close())
	s := openStore(t, dev.URI(), dir)
	require.NoError(t, s.Claim())
	require.NoError(t, tpm.DisablePlatform(t.Context(), dev.URI(), options("")))

	t.Run("refused", func(t *testing.T) {
		raw := rawTPM(t, dev)
		for _, x := range hierarchyCommands() {
			err := x.send(raw)
			require.Error(t, err, x.name)
			// A wrong lockout authorization ends the lockout hierarchy for a while, which is for
			// nobody's use.
			denied := errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail) || errors.Is(err, tpm2.TPMRCLockout)
			require.True(t, denied, "%s: it is for want of the authorization: %v", x.name, err)
		}
		for _, x := range platformCommands() {
			err := x.send(raw)
			require.ErrorIs(t, err, tpm2.TPMRCHierarchy, x.name)
		}
		// By the policy of the endorsement hierarchy there is the time, and nothing else.
		for _, h := range []tpm2.TPMHandle{endorsement, owner} {
			_, err := tpm2.CreatePrimary{InPublic: tpm2.New2B(tpm2.ECCSRKTemplate), PrimaryHandle: tpm2.AuthHandle{Handle: h, Name: tpm2.HandleName(h),
				Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(raw transport.TPM, session tpm2.TPMISHPolicy, _ tpm2.TPM2BNonce) error {
					_, err := tpm2.PolicyCommandCode{PolicySession: session, Code: tpm2.TPMCCGetTime}.Execute(raw)
					return err
				})}}.Execute(raw)
			require.Error(t, err)
		}
		_, err := tpm2.PolicySecret{AuthHandle: endorsement, PolicySession: trial(t, raw)}.Execute(raw)
		require.Error(t, err, "nor is the endorsement key at his disposal")
	})
	requireReplica(t, dev, s, dir, 1)

	t.Run("locked out", func(t *testing.T) {
		raw := rawTPM(t, dev)
		lockOut(t, raw)
	})
	s = openStore(t, dev.URI(), dir)
	require.NoError(t, dev.Reboot())
	require.NoError(t, s.Claim())
	requireReplica(t, dev, s, dir, 10)

	t.Run("well formed", func(t *testing.T) {
		open := newTPM(t, ours)
		_, dir := newStore(t, open.URI())
		giveUp(t, open, dir)
		out := openToAll(t, open)
		for _, x := range hierarchyCommands() {
			again := out()
			t.Run(x.name, func(t *testing.T) {
				raw := rawTPM(t, again)
				if x.name == "Clear" {
					require.NoError(t, (&command{code: tpm2.TPMCCClearControl, handles: []tpm2.TPMHandle{platform}, body: []byte{0}}).send(raw))
				}
				err := x.send(raw)
				if x.name == "ClearControl" { // the lockout hierarchy may only forbid
					require.NoError(t, (&command{code: x.code, handles: x.handles, body: []byte{1}}).send(raw))
					return
				}
				require.NoError(t, err)
			})
		}
	})
}

// TestPlantedPolicies: before Init somebody gives each hierarchy a policy that he can satisfy,
// which holds beside whatever authorization it gets. Init takes it away.
func TestPlantedPolicies(t *testing.T) {
	dev := newTPM(t, ours)
	uses := map[tpm2.TPMHandle]struct {
		code tpm2.TPMCC
		use  func(raw transport.TPM, by tpm2.AuthHandle) error
	}{
		owner: {tpm2.TPMCCCreatePrimary, func(raw transport.TPM, by tpm2.AuthHandle) error {
			_, err := tpm2.CreatePrimary{PrimaryHandle: by, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(raw)
			return err
		}},
		endorsement: {tpm2.TPMCCHierarchyChanegAuth, func(raw transport.TPM, by tpm2.AuthHandle) error {
			_, err := tpm2.HierarchyChangeAuth{AuthHandle: by}.Execute(raw)
			return err
		}},
		lockout: {tpm2.TPMCCHierarchyChanegAuth, func(raw transport.TPM, by tpm2.AuthHandle) error {
			_, err := tpm2.HierarchyChangeAuth{AuthHandle: by}.Execute(raw)
			return err
		}},
	}
	byPolicy := func(h tpm2.TPMHandle) tpm2.AuthHandle {
		return tpm2.AuthHandle{Handle: h, Name: tpm2.HandleName(h),
			Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(raw transport.TPM, session tpm2.TPMISHPolicy, _ tpm2.TPM2BNonce) error {
				_, err := tpm2.PolicyCommandCode{PolicySession: session, Code: uses[h].code}.Execute(raw)
				return err
			})}
	}
	t.Run("before", func(t *testing.T) {
		raw := rawTPM(t, dev)
		for h, x := range uses {
			policy := sha256.Sum256(bytesOf(make([]byte, 32), uint32(tpm2.TPMCCPolicyCommandCode), uint32(x.code)))
			plant := command{code: tpm2.TPMCCSetPrimaryPolicy, handles: []tpm2.TPMHandle{h}, body: bytesOf(sized(policy[:]), uint16(tpm2.TPMAlgSHA256))}
			require.NoError(t, plant.send(raw))
			require.NoError(t, x.use(raw, byPolicy(h)), "it works")
		}
	})
	s, dir := newStore(t, dev.URI())
	t.Run("afterwards", func(t *testing.T) {
		raw := rawTPM(t, dev)
		for h, x := range uses {
			require.Error(t, x.use(raw, byPolicy(h)), "%#x", uint32(h))
		}
	})
	require.NoError(t, s.Claim())
	requireReplica(t, dev, s, dir, 1)
}

// openToAll returns copies of a TPM that is shut down for it.
func openToAll(t *testing.T, dev *swtpm.TPM) func() *swtpm.TPM {
	dir := filepath.Dir(dev.Socket())
	require.NoError(t, dev.Close())
	name := filepath.Base(dir)
	return func() *swtpm.TPM { return newTPM(t, name) }
}

func trial(t *testing.T, raw transport.TPM) tpm2.TPMHandle {
	t.Helper()
	s, end, err := tpm2.PolicySession(raw, tpm2.TPMAlgSHA256, 16)
	require.NoError(t, err)
	t.Cleanup(func() { _ = end() })
	return s.Handle()
}

// lockOut makes the TPM refuse whatever takes part in the dictionary-attack lockout, which
// anybody can do by a key of his own.
func lockOut(t *testing.T, raw transport.TPM) {
	t.Helper()
	template := tpm2.ECCSRKTemplate
	template.ObjectAttributes.NoDA = false
	made, err := tpm2.CreatePrimary{PrimaryHandle: null, InPublic: tpm2.New2B(template),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte("his")}}},
	}.Execute(raw)
	require.NoError(t, err)
	for range 64 {
		_, err = tpm2.Create{ParentHandle: tpm2.AuthHandle{Handle: made.ObjectHandle, Name: made.Name, Auth: tpm2.PasswordAuth([]byte("wrong"))},
			InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(raw)
		if errors.Is(err, tpm2.TPMRCLockout) {
			break
		}
	}
	require.ErrorIs(t, err, tpm2.TPMRCLockout)
	_, err = tpm2.FlushContext{FlushHandle: made.ObjectHandle}.Execute(raw)
	require.NoError(t, err)
}

// TestCounters: the counters answer to the authorization in the directory alone.
func TestCounters(t *testing.T) {
	dev := newTPM(t, ours)
	s, _ := claimedStore(t, dev.URI())
	before, err := s.Status()
	require.NoError(t, err)
	t.Run("another user", func(t *testing.T) {
		raw := rawTPM(t, dev)
		for _, index := range []tpm2.TPMHandle{0x01805200, 0x01805201} {
			for _, by := range []tpm2.TPMHandle{index, owner, platform} {
				for _, x := range []command{
					{name: "NV_Increment", code: tpm2.TPMCCNVIncrement, handles: []tpm2.TPMHandle{by, index}},
					{name: "NV_Write", code: tpm2.TPMCCNVWrite, handles: []tpm2.TPMHandle{by, index}, body: bytesOf(sized(make([]byte, 8)), uint16(0))},
					{name: "NV_WriteLock", code: tpm2.TPMCCNVWriteLock, handles: []tpm2.TPMHandle{by, index}},
					{name: "NV_ReadLock", code: tpm2.TPMCCNVReadLock, handles: []tpm2.TPMHandle{by, index}},
				} {
					require.Error(t, x.send(raw), "%s of %#x by %#x", x.name, uint32(index), uint32(by))
				}
			}
			require.Error(t, (&command{code: 0x13b, handles: []tpm2.TPMHandle{index}, body: sized([]byte("his"))}).send(raw), "NV_ChangeAuth")
		}
	})
	after, err := s.Status()
	require.NoError(t, err)
	require.Equal(t, before.Counter, after.Counter)
	require.Equal(t, before.ApprovalVersion, after.ApprovalVersion)
	_, err = s.Quote(nonce)
	require.NoError(t, err)
}

// TestOwnedTPM: where the machine's owner has authorized the hierarchies, Init says what it
// needs, works with it, and leaves his authorizations as they are.
func TestOwnedTPM(t *testing.T) {
	for name, owned := range map[string]struct {
		set    map[string]string
		source map[string]string
		wants  string
	}{
		"the owner hierarchy":       {set: map[string]string{"o": "his"}, source: map[string]string{"owner": "his"}, wants: "owner-auth-source"},
		"the endorsement hierarchy": {set: map[string]string{"e": "his"}, source: map[string]string{"endorsement": "his"}, wants: "endorsement-auth-source"},
		"all, alike":                {set: map[string]string{"o": "his", "e": "his", "l": "his"}, source: map[string]string{"owner": "his"}, wants: "owner-auth-source"},
		"all, each another": {set: map[string]string{"o": "his", "e": "hers", "l": "its"},
			source: map[string]string{"owner": "his", "endorsement": "hers"}, wants: "owner-auth-source"},
	} {
		t.Run(name, func(t *testing.T) {
			dev := newTPM(t, ours)
			for h, auth := range owned.set {
				tool(t, "changeauth", "-T", "swtpm:path="+dev.Socket(), "-c", h, auth)
			}
			dir := filepath.Join(t.TempDir(), "keystore")
			_, err := tpm.Init(t.Context(), dev.URI(), options(dir))
			require.ErrorIs(t, err, keystore.ErrOwned)
			require.ErrorContains(t, err, owned.wants)
			uri := dev.URI() + "?slot=0"
			for h, auth := range owned.source {
				file := filepath.Join(t.TempDir(), h)
				require.NoError(t, os.WriteFile(file, []byte(auth), 0o600))
				uri += "&" + h + "-auth-source=file:" + file
			}
			s, err := tpm.Init(t.Context(), uri, options(dir))
			require.NoError(t, err)
			e, err := s.Enrollment()
			require.NoError(t, err)
			credential, err := keystore.MakeCredential(options("").Rand, e, []byte("challenge"))
			require.NoError(t, err)
			_, err = s.ActivateCredential(credential)
			require.NoError(t, err)
			approvePresent(t, s)
			require.NoError(t, s.Close())
			_, err = os.Stat(filepath.Join(dir, tpm.HierarchiesFile))
			require.Equal(t, len(owned.set) == 3, os.IsNotExist(err), "what was made is for the hierarchies that had none")
			s = openStore(t, dev.URI(), dir)
			require.NoError(t, s.Claim())
			requireReplica(t, dev, s, dir, 1)
			for h, auth := range owned.set {
				tool(t, "changeauth", "-T", "swtpm:path="+dev.Socket(), "-c", h, "-p", auth, auth)
			}
		})
	}
	dev := newTPM(t, ours)
	file := filepath.Join(t.TempDir(), "auth")
	require.NoError(t, os.WriteFile(file, []byte("mine"), 0o600))
	_, err := tpm.Init(t.Context(), dev.URI()+"?owner-auth-source=file:"+file, options(filepath.Join(t.TempDir(), "k")))
	require.ErrorContains(t, err, "leave owner-auth-source out")
}

// TestHierarchiesFile: the authorization is readable by the keystore's user alone, does not
// show in what a keystore says, and Status asks for it to be taken away.
func TestHierarchiesFile(t *testing.T) {
	dev := newTPM(t, ours)
	dir := filepath.Join(t.TempDir(), "keystore")
	s, err := tpm.Init(t.Context(), dev.URI(), options(dir))
	require.NoError(t, err)
	path := filepath.Join(dir, tpm.HierarchiesFile)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	auth, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Len(t, strings.TrimSpace(string(auth)), 32)
	backup, err := tpm.Backup(dir)
	require.NoError(t, err)
	require.NotContains(t, string(backup), strings.TrimSpace(string(auth)))
	cautions := func() string {
		st, err := s.Status()
		require.NoError(t, err)
		return strings.Join(st.Cautions, " ")
	}
	require.Contains(t, cautions(), tpm.HierarchiesFile)
	takeAway(t, dir)
	require.NotContains(t, cautions(), tpm.HierarchiesFile)
	require.NotContains(t, cautions(), "hierarchy")
	giveUp(t, dev, dir)
	require.Contains(t, cautions(), "owner or endorsement hierarchy has no authorization")
}
