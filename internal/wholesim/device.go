package wholesim

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/reseal-bft/reseal/keystore"
)

// device is a machine's TPM with what is sealed under it. It outlives processes and power cuts.
type device struct {
	identity *ecdsa.PrivateKey
	tpm      *tpm

	mu     sync.Mutex
	epoch  uint64
	sealed map[uint64][]byte
}

func newDevice() (*device, error) {
	identity, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t, err := newTPM()
	return &device{identity: identity, tpm: t, sealed: make(map[uint64][]byte)}, err
}

// held returns the device's epoch, and that of the oldest secret that can be unsealed.
func (d *device) held() (epoch, oldest uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	oldest = d.epoch
	for e := range maps.Keys(d.sealed) {
		oldest = min(oldest, e)
	}
	return d.epoch, oldest
}

// session is one process's hold on the device. Before each change it asks whether the process is
// still there: a power cut may come at any of them.
type session struct {
	*device
	before func(what string) error
	learn  func(secret []byte) // hears what is sealed; nil for a correct replica
}

var _ interface {
	keystore.Keystore
	keystore.Attester
} = (*session)(nil)

func (s *session) Identity() crypto.Signer { return s.identity }

func (s *session) Seal(epoch uint64, secret []byte) error {
	if err := s.before(fmt.Sprintf("seal %d", epoch)); err != nil {
		return err
	}
	if s.learn != nil {
		s.learn(secret)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case epoch < s.epoch:
		return keystore.ErrErased
	case len(secret) > keystore.MaxSecret:
		return keystore.ErrTooLarge
	}
	s.sealed[epoch] = bytes.Clone(secret)
	return nil
}

func (s *session) Unseal(epoch uint64) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	secret, ok := s.sealed[epoch]
	switch {
	case epoch < s.epoch:
		return nil, keystore.ErrErased
	case !ok:
		return nil, keystore.ErrNotFound
	}
	return bytes.Clone(secret), nil
}

func (s *session) Claim() error { return s.before("claim") }

func (s *session) Advance(epoch uint64) error {
	if err := s.before(fmt.Sprintf("advance %d", epoch)); err != nil {
		return err
	}
	s.mu.Lock()
	if epoch < s.epoch {
		s.mu.Unlock()
		return keystore.ErrErased
	}
	s.epoch = epoch
	maps.DeleteFunc(s.sealed, func(e uint64, secret []byte) bool { return e < epoch })
	s.mu.Unlock()
	return s.before(fmt.Sprintf("advanced %d", epoch))
}

func (s *session) Status() (keystore.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return keystore.Status{Kind: "tpm", Device: "simulated", Epoch: s.epoch, Software: true, ResetCount: s.tpm.resets()}, nil
}

func (s *session) Close() error { return nil }

func (s *session) AttestationKey() []byte                      { return s.tpm.public() }
func (s *session) Quote(nonce []byte) (*keystore.Quote, error) { return s.tpm.quote(nonce) }
func (s *session) DeviceID() [32]byte                          { return [32]byte{} }
func (s *session) Enrollment() (*keystore.Enrollment, error)   { return nil, errNotSimulated }
func (s *session) ReadPCRs() ([]keystore.PCRValue, error)      { return nil, errNotSimulated }
func (s *session) Extend(int, [32]byte) error                  { return errNotSimulated }
func (s *session) AddApproval(*keystore.Approval) error        { return nil } // the one boot state is approved
func (s *session) RevokeApprovals(uint64) (uint64, error)      { return 0, errNotSimulated }
func (s *session) ActivateCredential(*keystore.Credential) ([]byte, error) {
	return nil, errNotSimulated
}

var errNotSimulated = errors.New("the simulated device does not do this")
