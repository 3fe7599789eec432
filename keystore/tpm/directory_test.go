package tpm_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/swtpm"
	"github.com/reseal-bft/reseal/keystore/tpm"
	"github.com/stretchr/testify/require"
)

// intruder has a machine for a while: its disk, its TPM in whatever he boots, and a key
// to approve that with. He does not have the operator's key.
type intruder struct {
	t        *testing.T
	dev      *swtpm.TPM
	operator *ecdsa.PrivateKey
}

func newIntruder(t *testing.T, dev *swtpm.TPM) *intruder {
	operator, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return &intruder{t, dev, operator}
}

func (x *intruder) options(dir string) keystore.Options {
	o := options(dir)
	o.OperatorKey = &x.operator.PublicKey
	return o
}

// boot boots something.
func (x *intruder) boot(what string) {
	x.t.Helper()
	require.NoError(x.t, x.dev.Reboot())
	require.NoError(x.t, tpm.Extend(x.t.Context(), x.dev.URI(), 14, sha256.Sum256([]byte(what)), options("")))
}

// opens tries everything to open the secret of an epoch with a directory, in a system of
// his own that he approves himself.
func (x *intruder) opens(dir string, epoch uint64) bool {
	x.t.Helper()
	x.boot("his own system")
	for _, o := range []keystore.Options{options(dir), x.options(dir)} {
		s, err := tpm.Open(x.t.Context(), x.dev.URI(), o)
		if err != nil {
			continue
		}
		values, err := s.ReadPCRs()
		require.NoError(x.t, err)
		a, err := keystore.Approve(rand.Reader, x.operator, keystore.BootState{Device: s.DeviceID(), PCRs: values, Version: 1 << 60})
		require.NoError(x.t, err)
		_ = s.AddApproval(a)
		if _, err := s.Unseal(epoch); err == nil {
			return true
		}
		if s.Claim() == nil {
			return true
		}
	}
	return false
}

// fields reads the fields of a keystore's file, those of objects in it by "object.field".
func fields(t *testing.T, dir string) map[string]json.RawMessage {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "keystore.json"))
	require.NoError(t, err)
	var outer map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(data, &outer))
	all := make(map[string]json.RawMessage)
	for name, value := range outer {
		var inner map[string]json.RawMessage
		if json.Unmarshal(value, &inner) != nil || inner == nil {
			all[name] = value
			continue
		}
		for field, v := range inner {
			all[name+"."+field] = v
		}
	}
	return all
}

func writeFields(t *testing.T, dir string, all map[string]json.RawMessage) {
	t.Helper()
	outer := make(map[string]any)
	for name, value := range all {
		object, field, nested := strings.Cut(name, ".")
		if !nested {
			outer[name] = value
			continue
		}
		if outer[object] == nil {
			outer[object] = make(map[string]json.RawMessage)
		}
		outer[object].(map[string]json.RawMessage)[field] = value
	}
	data, err := json.Marshal(outer)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "keystore.json"), data, 0o600))
}

// TestDirectoryIsNotTrusted exchanges every field of the keystore's file, alone and in
// pairs, for that of a keystore which the intruder made on the same TPM with his own
// operator key. The clean replica then opens the keystore, as it was told by the genesis,
// and seals its next share: either it notices, or the share does not open for him.
func TestDirectoryIsNotTrusted(t *testing.T) {
	dev := newTPM(t, ours)
	x := newIntruder(t, dev)
	x.boot("clean")
	victim, dir := newStore(t, dev.URI())
	his := filepath.Join(t.TempDir(), "his")
	planted, err := tpm.Init(t.Context(), asOwner(dev.URI()+"?slot=1", dir), x.options(his))
	require.NoError(t, err)
	require.NoError(t, planted.Close())
	ours, theirs := fields(t, dir), fields(t, his)

	var swaps [][]string
	for a := range ours {
		swaps = append(swaps, []string{a})
		for b := range ours {
			if a < b && !strings.HasPrefix(a+b, "version") {
				swaps = append(swaps, []string{a, b})
			}
		}
	}
	swaps = append(swaps, []string{"gate.public", "gate.private", "identity.public", "identity.private", "attestation", "enroller", "reset_count"})
	outcomes := make(map[string]int)
	for _, swap := range swaps {
		altered := filepath.Join(t.TempDir(), "altered")
		require.NoError(t, os.CopyFS(altered, os.DirFS(dir)))
		all := make(map[string]json.RawMessage)
		for name, value := range ours {
			all[name] = value
		}
		for _, name := range swap {
			all[name] = theirs[name]
			if theirs[name] == nil {
				delete(all, name)
			}
		}
		writeFields(t, altered, all)
		x.boot("clean")
		s, err := tpm.Open(t.Context(), dev.URI(), options(altered))
		if err != nil {
			outcomes["not opened"]++
			continue
		}
		if !victim.Identity().Public().(*ecdsa.PublicKey).Equal(s.Identity().Public()) {
			outcomes["another identity, which the replica refuses"]++
			continue
		}
		if err := s.Seal(5, []byte("the next share")); err != nil {
			outcomes["not sealed"]++
			continue
		}
		outcomes["sealed, and not opened by him"]++
		require.False(t, x.opens(altered, 5), "swapped: %v", swap)
	}
	t.Log(outcomes)
	require.NotZero(t, outcomes["sealed, and not opened by him"])
}

// TestOtherFilesAreNotTrusted puts in the place of each other file one of the intruder's:
// garbage, nothing, a link, his own of the same kind.
func TestOtherFilesAreNotTrusted(t *testing.T) {
	dev := newTPM(t, ours)
	x := newIntruder(t, dev)
	x.boot("clean")
	victim, dir := newStore(t, dev.URI())
	require.NoError(t, victim.Advance(1))
	require.NoError(t, victim.Seal(1, []byte("share")))
	values, err := victim.ReadPCRs()
	require.NoError(t, err)
	his, err := keystore.Approve(rand.Reader, x.operator, keystore.BootState{Device: victim.DeviceID(), PCRs: values, Version: 1 << 60})
	require.NoError(t, err)
	approval, err := his.MarshalBinary()
	require.NoError(t, err)
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, names, 4, "keystore.json, epoch.json, an approval, a sealed share")
	for _, entry := range names {
		for what, content := range map[string]string{"nothing": "", "garbage": "\x00\x01garbage", "an approval of his": string(approval), "huge": strings.Repeat("x", 1<<20)} {
			if entry.Name() == "keystore.json" {
				continue
			}
			altered := filepath.Join(t.TempDir(), "altered")
			require.NoError(t, os.CopyFS(altered, os.DirFS(dir)))
			require.NoError(t, os.WriteFile(filepath.Join(altered, entry.Name()), []byte(content), 0o600))
			x.boot("clean")
			s, err := tpm.Open(t.Context(), dev.URI(), options(altered))
			require.NoError(t, err, "%s: %s", entry.Name(), what)
			if _, err = s.Unseal(1); err != nil {
				require.True(t, keystore.Lost(err) || strings.HasPrefix(entry.Name(), "approval"), "%s: %s: %v", entry.Name(), what, err)
			}
			require.NoError(t, s.Seal(2, []byte("the next share")), "%s: %s", entry.Name(), what)
			require.NoError(t, s.Advance(2), "%s: %s", entry.Name(), what)
			require.False(t, x.opens(altered, 2), "%s: %s", entry.Name(), what)
		}
	}
}
