package tpm

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

const (
	configFile     = "keystore.json"
	epochFile      = "epoch.json"
	approvalPrefix = "approval-"
	configVersion  = 1
	kindName       = "tpm"
	maxApprovals   = 16
	maxRevoked     = 256 // versions at once
	maxAhead       = 8   // of the counter, that an envelope may be bound to
	authSize       = 16  // bytes of randomness in the counters' authorization, which are 32 as text
)

// Persistent handles, see the package comment.
const (
	rootHandle      = tpm2.TPMHandle(0x81000001)
	identityBase    = 0x81005200
	attestationBase = 0x81005201
	handlesPerSlot  = 0x10
)

// config is what Init writes once.
type config struct {
	Version     int                `json:"version"`
	Kind        string             `json:"kind"`
	Slot        uint8              `json:"slot"`
	PCRs        keystore.Selection `json:"pcrs"`
	Operator    []byte             `json:"operator"`     // PKIX DER
	Root        []byte             `json:"root"`         // TPMT_PUBLIC of the storage root key
	Identity    []byte             `json:"identity"`     // TPMT_PUBLIC
	Attestation []byte             `json:"attestation"`  // TPMT_PUBLIC
	Auth        authorization      `json:"counter_auth"` // of the counters
}

// authorization is a secret that the directory keeps. It does not print.
type authorization string

// Format keeps an authorization out of logs and errors.
func (authorization) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[secret]")) }

// epochs is what Advance writes.
type epochs struct {
	Current mark  `json:"current"`
	Next    *mark `json:"next,omitempty"` // what an Advance that was begun commits, at the latest at its counter
}

// mark says which value of the counter stands for an epoch.
type mark struct {
	Epoch   uint64 `json:"epoch"`
	Counter uint64 `json:"counter"`
}

// newAuth returns an authorization value. It is text, as an authorization value
// with a zero byte in it is cut short there by go-tpm's sessions.
func newAuth(rand io.Reader) (authorization, error) {
	b := make([]byte, authSize)
	if _, err := io.ReadFull(rand, b); err != nil {
		return "", fmt.Errorf("randomness: %w", err)
	}
	return authorization(hex.EncodeToString(b)), nil
}

// readConfig reads and checks what Init wrote.
func readConfig(dir *statedir.Dir) (*config, error) {
	var c config
	err := dir.ReadJSON(configFile, &c)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir.Path(), keystore.ErrNoKeystore)
	}
	if err != nil {
		return nil, err
	}
	if c.Version != configVersion || c.Kind != kindName {
		return nil, fmt.Errorf("%s holds a keystore of kind %q, version %d: open it by its own URI", dir.Path(), c.Kind, c.Version)
	}
	if err := c.PCRs.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", dir.Path(), keystore.ErrCorrupt, err)
	}
	return &c, nil
}

// operatorKey parses the operator's key.
func (c *config) operatorKey() (*ecdsa.PublicKey, error) {
	key, err := x509.ParsePKIXPublicKey(c.Operator)
	if err != nil {
		return nil, fmt.Errorf("operator key: %w", err)
	}
	operator, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("operator key: %T is not an ECDSA key", key)
	}
	return operator, nil
}

func (c *config) identityHandle() tpm2.TPMHandle {
	return tpm2.TPMHandle(identityBase + uint32(c.Slot)*handlesPerSlot)
}

func (c *config) attestationHandle() tpm2.TPMHandle {
	return tpm2.TPMHandle(attestationBase + uint32(c.Slot)*handlesPerSlot)
}
