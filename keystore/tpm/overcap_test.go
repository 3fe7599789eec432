package tpm

import (
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
	"github.com/stretchr/testify/require"
)

// overTheCap is what is carried over the claim of a boot, and how.
var overTheCap = map[string]struct {
	cap   bool
	carry func(t *testing.T, c *conn, object *root, session tpm2.Session)
}{
	"nothing: the boot is not claimed": {false, func(*testing.T, *conn, *root, tpm2.Session) {}},
	"left in the TPM":                  {true, func(*testing.T, *conn, *root, tpm2.Session) {}},
	"saved as contexts, and loaded": {true, func(t *testing.T, c *conn, object *root, session tpm2.Session) {
		object.handle = saveAndLoad(t, c, object.handle)
		require.Equal(t, session.Handle(), saveAndLoad(t, c, session.Handle()))
	}},
}

// saveAndLoad swaps an object or a session out and in, and returns its new handle.
func saveAndLoad(t *testing.T, c *conn, h tpm2.TPMHandle) tpm2.TPMHandle {
	t.Helper()
	saved, err := tpm2.ContextSave{SaveHandle: h}.Execute(c)
	require.NoError(t, err)
	if h>>24 == tpm2.TPMHandle(tpm2.TPMHTTransient) {
		require.NoError(t, c.flush(h))
	}
	require.NoError(t, extend(c, 16, sha256.Sum256(nil)), "something happens meanwhile")
	loaded, err := tpm2.ContextLoad{Context: saved.Context}.Execute(c)
	require.NoError(t, err)
	return loaded.LoadedHandle
}

// TestNothingIsCarriedOverTheCap: who was at the TPM before the boot was claimed, in the approved
// state, has sessions open that proved it, and keys loaded. After the claim they sign and open
// nothing, wherever they were meanwhile.
func TestNothingIsCarriedOverTheCap(t *testing.T) {
	dev := startTPM(t)
	w := &world{disk: vfs.NewCrashableMem()}
	prepareKeystore(t, w, dev.URI())
	s := w.process(t, dev.URI())
	approvals, err := s.approvals()
	require.NoError(t, err)
	sealed, err := s.dir.Sealed(statedir.KindTPM, 1)
	require.NoError(t, err)
	digest := sha256.Sum256([]byte("a key of his"))
	targets := map[string]struct {
		key  blob
		last func(c *conn, session tpm2.Session) error // of the policy
		use  func(c *conn, by tpm2.AuthHandle) error
	}{
		"the gate key": {s.cfg.Gate, func(*conn, tpm2.Session) error { return nil }, func(c *conn, by tpm2.AuthHandle) error {
			_, err := tpm2.Sign{KeyHandle: by, Digest: tpm2.TPM2BDigest{Buffer: digest[:]}, InScheme: ecdsaScheme(),
				Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull}}.Execute(c)
			return err
		}},
		"the share": {wrapped(t, sealed), func(c *conn, session tpm2.Session) error {
			return s.epochCounter.policy(c, session, s.root.once(plain, s.cfg.CounterAuth), tpm2.TPMEOUnsignedLE, sealed.Binding)
		}, func(c *conn, by tpm2.AuthHandle) error {
			_, err := tpm2.Unseal{ItemHandle: by}.Execute(c)
			return err
		}},
	}
	for how, over := range overTheCap {
		for what, target := range targets {
			t.Run(what+" "+how, func(t *testing.T) {
				require.NoError(t, dev.Reboot())
				require.NoError(t, s.operate(func(c *conn) error {
					session, end, err := s.approvedSession(c, approvals, plain)
					require.NoError(t, err)
					defer end()
					require.NoError(t, target.last(c, session))
					object, _, err := s.root.load(c, target.key)
					require.NoError(t, err)
					if over.cap {
						require.NoError(t, extend(c, s.pcrs.Highest(), keystore.CapEvent))
					}
					over.carry(t, c, object, session)
					err = target.use(c, tpm2.AuthHandle{Handle: object.handle, Name: object.name, Auth: session})
					if over.cap {
						require.ErrorIs(t, err, tpm2.TPMRCPCRChanged)
					} else {
						require.NoError(t, err)
					}
					return c.flush(object.handle)
				}))
			})
		}
	}
}

// TestNoAuthorizationIsGivenToTheKeys: what the role of an administrator may do with the identity
// and the gate key, whose authorization is empty, is to give them another authorization. They do
// not answer to that one either.
func TestNoAuthorizationIsGivenToTheKeys(t *testing.T) {
	dev := startTPM(t)
	w := &world{disk: vfs.NewCrashableMem()}
	prepareKeystore(t, w, dev.URI())
	s := w.process(t, dev.URI())
	digest := sha256.Sum256([]byte("a credential of his"))
	for name, key := range map[string]blob{"identity": s.cfg.Identity, "gate": s.cfg.Gate} {
		require.NoError(t, s.operate(func(c *conn) error {
			object, unload, err := s.root.load(c, key)
			require.NoError(t, err)
			changed, err := tpm2.ObjectChangeAuth{
				ObjectHandle: emptyAuth(object.handle, object.name), ParentHandle: tpm2.NamedHandle{Handle: s.root.handle, Name: s.root.name},
				NewAuth: tpm2.TPM2BAuth{Buffer: []byte("his")},
			}.Execute(c)
			require.NoError(t, errors.Join(err, unload()), name)
			his, unload, err := s.root.load(c, blob{Public: key.Public, Private: changed.OutPrivate.Buffer})
			require.NoError(t, err)
			for _, auth := range []tpm2.Session{tpm2.PasswordAuth([]byte("his")), tpm2.HMAC(tpm2.TPMAlgSHA256, nonceSize, tpm2.Auth([]byte("his")))} {
				_, err = tpm2.Sign{KeyHandle: tpm2.AuthHandle{Handle: his.handle, Name: his.name, Auth: auth}, Digest: tpm2.TPM2BDigest{Buffer: digest[:]},
					InScheme: ecdsaScheme(), Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull}}.Execute(c)
				require.ErrorIs(t, err, tpm2.TPMRCAuthUnavailable, name)
			}
			return unload()
		}))
	}
}
