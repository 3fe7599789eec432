//go:build mutants

package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/mutant"
	"github.com/reseal-bft/reseal/keystore/statedir"
	"github.com/stretchr/testify/require"
)

// attacks say whether they succeed, on a TPM whose keystore is in epoch 1 with a share.
var attacks = map[string]func(t *testing.T, w *world, reboot func(), uri string) bool{
	mutant.NoCap: func(t *testing.T, w *world, _ func(), uri string) bool {
		require.NoError(t, w.process(t, uri).Claim())
		_, err := w.process(t, uri).Unseal(1)
		return err == nil
	},
	mutant.UseAnyBoot: func(t *testing.T, w *world, reboot func(), uri string) bool {
		s := w.process(t, uri)
		require.NoError(t, s.Claim())
		reboot()
		digest := sha256.Sum256(nil)
		_, err := s.Identity().Sign(nil, digest[:], crypto.SHA256)
		return err == nil
	},
	mutant.OperatorFromDir: func(t *testing.T, w *world, _ func(), uri string) bool {
		evil, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		der, err := x509.MarshalPKIXPublicKey(&evil.PublicKey)
		require.NoError(t, err)
		dir, err := statedir.NewFS(worldFS{w}, "keystore")
		require.NoError(t, err)
		require.NoError(t, dir.Write("operator.der", der))
		require.NoError(t, w.process(t, uri).Seal(2, share(2)))
		s := (&world{disk: w.disk, operator: &evil.PublicKey}).process(t, uri)
		require.NoError(t, s.Extend(14, [32]byte{1}))
		values, err := s.ReadPCRs()
		require.NoError(t, err)
		a, err := keystore.Approve(rand.Reader, evil, keystore.BootState{Device: s.DeviceID(), PCRs: values, Version: 1 << 40})
		require.NoError(t, err)
		_ = s.AddApproval(a)
		_, err = s.Unseal(2)
		return err == nil
	},
	mutant.OpenIdentity: func(t *testing.T, w *world, _ func(), uri string) bool {
		s := w.process(t, uri)
		var signed error
		require.NoError(t, s.operate(func(c *conn) error {
			key := tpm2.TPMHandle(rootBase)
			_, name, err := readPublic(c, key)
			if err != nil {
				signed = err
				return nil
			}
			digest := sha256.Sum256(nil)
			_, signed = tpm2.Sign{
				KeyHandle: emptyAuth(key, name), Digest: tpm2.TPM2BDigest{Buffer: digest[:]}, InScheme: ecdsaScheme(),
				Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
			}.Execute(c)
			return nil
		}))
		return signed == nil
	},
	mutant.NoIncrement: func(t *testing.T, w *world, _ func(), uri string) bool {
		backup := &world{disk: w.crash(), operator: w.operator}
		s := w.process(t, uri)
		require.NoError(t, s.Seal(2, share(2)))
		require.NoError(t, s.Advance(2))
		_, err := backup.process(t, uri).Unseal(1)
		return err == nil
	},
	mutant.ApprovalsForAll: func(t *testing.T, w *world, _ func(), uri string) bool {
		s := w.process(t, uri)
		for _, a := range must(s.approvals()) {
			foreign := *a
			foreign.State.Device[0]++
			if s.AddApproval(&foreign) == nil {
				return true
			}
		}
		return false
	},
	mutant.OpenHierarchies: func(t *testing.T, w *world, _ func(), uri string) bool {
		var taken error
		require.NoError(t, w.process(t, uri).operate(func(c *conn) error {
			_, taken = tpm2.HierarchyChangeAuth{
				AuthHandle: emptyAuth(tpm2.TPMRHOwner, tpm2.HandleName(tpm2.TPMRHOwner)),
				NewAuth:    tpm2.TPM2BAuth{Buffer: []byte("his")},
			}.Execute(c)
			return nil
		}))
		return taken == nil
	},
}

func must[T any](v T, _ error) T { return v }

// TestMutants: each attack succeeds with its bug planted, and not without.
func TestMutants(t *testing.T) {
	require.Len(t, attacks, len(mutant.Names))
	for name, attack := range attacks {
		for _, planted := range []string{"", name} {
			t.Run(name+"/"+planted, func(t *testing.T) {
				require.True(t, mutant.Plant(planted))
				defer mutant.Plant("")
				dev := startTPM(t)
				w := &world{disk: vfs.NewCrashableMem()}
				prepareKeystore(t, w, dev.URI())
				require.Equal(t, planted != "", attack(t, w, func() { require.NoError(t, dev.Reboot()) }, dev.URI()))
			})
		}
	}
}
