package tpm

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
	"golang.org/x/crypto/cryptobyte"
)

// Seal implements keystore.Keystore.
func (s *Store) Seal(epoch uint64, secret []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	current, err := s.current()
	if err != nil {
		return err
	}
	if current, err = s.believe("seal for", epoch, current); err != nil {
		return err
	}
	value := s.binding(epoch, current)
	if value > current.Counter+maxAhead {
		return fmt.Errorf("seal for epoch %d: %d other epochs after the current one, %d, were sealed for: advance first", epoch, maxAhead, current.Epoch)
	}
	envelope := statedir.Sealed{Kind: statedir.KindTPM, Epoch: epoch, Binding: value}
	sealed, err := statedir.Seal(s.rand, envelope, secret, func(key []byte) (wrapped []byte, err error) {
		err = s.operate(func(c *conn) error {
			wrapped, err = s.wrap(c, value, key)
			return err
		})
		return wrapped, err
	})
	if err != nil {
		return fmt.Errorf("seal for epoch %d: %w", epoch, err)
	}
	s.proven[epoch] = value
	if err := s.dir.PutSealed(sealed); err != nil {
		return err
	}
	if epoch == current.Epoch {
		return nil
	}
	return s.dir.RemoveAfter(current.Epoch, epoch)
}

// believe returns the epoch that is current when a caller names one for which a secret
// is to be sealed, or that is to begin: it takes his word. What the directory names of a
// later epoch is removed, and nothing opens by it that would not open otherwise.
func (s *Store) believe(what string, epoch uint64, current mark) (mark, error) {
	back, err := statedir.GoesBack(epoch, current.Epoch, s.settled.Epoch)
	if err != nil {
		return mark{}, fmt.Errorf("%s epoch %d: %w", what, epoch, err)
	}
	if !back {
		return current, nil
	}
	s.log.Warn("the keystore's directory names a later epoch than the group's: what it holds of it is removed", "found", current.Epoch, "epoch", epoch)
	current.Epoch = epoch
	if err := s.dir.WriteJSON(epochFile, epochs{Current: current}); err != nil {
		return mark{}, err
	}
	return current, s.dir.RemoveAfter(epoch)
}

// wrap makes an object of the TPM that holds key, under the policy for a value
// of the counter.
func (s *Store) wrap(c *conn, value uint64, key []byte) ([]byte, error) {
	policy := keystore.SealPolicy(s.approver(), s.device, s.slot, value)
	rsp, err := tpm2.Create{
		ParentHandle: s.root.authorize(s.root.handle, s.root.name, both, ""),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: key}),
		}},
		InPublic: tpm2.New2B(sealedTemplate(policy)),
	}.Execute(c)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(rsp.OutPrivate.Buffer) })
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(rsp.OutPublic.Bytes()) })
	return b.Bytes()
}

// sealedTemplate is data that opens by its policy only.
func sealedTemplate(policy [sha256.Size]byte) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgKeyedHash,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, AdminWithPolicy: true, NoDA: true,
		},
		AuthPolicy: tpm2.TPM2BDigest{Buffer: policy[:]},
	}
}

// Unseal implements keystore.Keystore. When there is an envelope for the epoch,
// it is the TPM that decides.
func (s *Store) Unseal(epoch uint64) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, keystore.ErrClosed
	}
	secret, err := s.unseal(epoch)
	if errors.Is(err, keystore.ErrNotFound) {
		if current, currentErr := s.current(); currentErr == nil && epoch < current.Epoch {
			return nil, fmt.Errorf("unseal epoch %d: %w: the current epoch is %d", epoch, keystore.ErrErased, current.Epoch)
		}
	}
	return secret, err
}

// unseal is Unseal with s.mu held.
func (s *Store) unseal(epoch uint64) ([]byte, error) {
	sealed, err := s.dir.Sealed(statedir.KindTPM, epoch)
	if err != nil {
		return nil, err
	}
	secret, err := s.open(sealed)
	if err == nil {
		s.proven[epoch] = sealed.Binding
	}
	return secret, err
}

// open unwraps the key of an envelope in the TPM and decrypts it.
func (s *Store) open(sealed *statedir.Sealed) ([]byte, error) {
	approvals, err := s.approvals()
	if err != nil {
		return nil, err
	}
	var key []byte
	err = s.operate(func(c *conn) error {
		key, err = s.unwrap(c, sealed, approvals)
		return err
	})
	defer clear(key)
	if err != nil {
		return nil, err
	}
	return sealed.Open(key)
}

// unwrap loads the object of an envelope and proves its policy.
func (s *Store) unwrap(c *conn, sealed *statedir.Sealed, approvals []*keystore.Approval) ([]byte, error) {
	var private, public cryptobyte.String
	wrapped := cryptobyte.String(sealed.Wrapped)
	if !wrapped.ReadUint16LengthPrefixed(&private) || !wrapped.ReadUint16LengthPrefixed(&public) || !wrapped.Empty() {
		return nil, fmt.Errorf("epoch %d: %w: not an object of a TPM", sealed.Epoch, keystore.ErrCorrupt)
	}
	session, end, err := s.approvedSession(c, approvals, out)
	var refusal *refusal
	if errors.As(err, &refusal) {
		return nil, s.refused(sealed, refusal.reason, "%s", refusal.detail)
	}
	if err != nil {
		return nil, fmt.Errorf("unseal epoch %d: %w", sealed.Epoch, err)
	}
	defer end()
	object, unload, err := s.root.load(c, blob{Public: public, Private: private})
	if damaged(err) {
		return nil, s.refused(sealed, errNotLoaded, "it does not load what was sealed: %v", err)
	}
	if err != nil {
		return nil, fmt.Errorf("unseal epoch %d: load: %w", sealed.Epoch, err)
	}
	key, err := s.unsealObject(c, sealed, object, session)
	return key, errors.Join(err, unload())
}

// errNotLoaded: a TPM cannot tell what another one made from what was changed.
var errNotLoaded = fmt.Errorf("%w, or it was changed since: %w", keystore.ErrForeignDevice, keystore.ErrCorrupt)

// damaged reports the errors by which a TPM refuses to load an object: its own
// parameters are at fault, not the room in the TPM or the session.
func damaged(err error) bool {
	var fault tpm2.TPMFmt1Error
	if !errors.As(err, &fault) {
		return false
	}
	isParameter, _ := fault.Parameter()
	return isParameter
}

// unsealObject proves the rest of the policy of a loaded object and reads its data.
func (s *Store) unsealObject(c *conn, sealed *statedir.Sealed, object *root, session tpm2.Session) ([]byte, error) {
	read := s.root.once(plain, s.cfg.CounterAuth)
	if err := s.epochCounter.policy(c, session, read, tpm2.TPMEOUnsignedLE, sealed.Binding); err != nil {
		return nil, s.counterRefused(c, sealed, err)
	}
	rsp, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: object.handle, Name: object.name, Auth: session}}.Execute(c)
	if errors.Is(err, tpm2.TPMRCPolicyFail) {
		return nil, s.refused(sealed, keystore.ErrCorrupt, "it was sealed under another policy: %v", err)
	}
	if err != nil {
		return nil, fmt.Errorf("unseal epoch %d: %w", sealed.Epoch, err)
	}
	return rsp.OutData.Buffer, nil
}

// counterRefused explains why the TPM did not accept the counter's value.
func (s *Store) counterRefused(c *conn, sealed *statedir.Sealed, refusal error) error {
	if !errors.Is(refusal, tpm2.TPMRCPolicy) {
		return fmt.Errorf("unseal epoch %d: %w", sealed.Epoch, refusal)
	}
	value, err := s.epochCounter.read(c)
	if err != nil {
		return err
	}
	return s.refused(sealed, keystore.ErrErased, "sealed under counter %d, which is at %d now: %v", sealed.Binding, value, refusal)
}

func (s *Store) refused(sealed *statedir.Sealed, reason error, format string, args ...any) error {
	return &keystore.RefusedError{Device: "TPM", Epoch: sealed.Epoch, Reason: reason, Detail: fmt.Sprintf(format, args...)}
}
