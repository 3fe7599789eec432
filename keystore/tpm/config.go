package tpm

import (
	"encoding/hex"
	"encoding/json"
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
	configVersion  = 3
	kindName       = "tpm"
	maxApprovals   = 16
	maxRevoked     = 1 << 17 // versions; a TPM's memory is not written more often than that
	revokedAtOnce  = 256     // versions in one call
	maxAhead       = 8       // of the counter, that an envelope may be bound to
	authSize       = 16      // bytes of randomness in an authorization, which is 32 as text
)

// Persistent handles, see the package comment.
const (
	rootHandle      = tpm2.TPMHandle(0x81000001)
	rootBase        = 0x81005200
	attestationBase = 0x81005201
	handlesPerSlot  = 0x10
	checkSlot       = 255 // of keystores that are made to be tried, and removed
)

// config is what Init writes once: what is needed to load the keys again. Who can
// write it can make the keystore useless; what he writes in it opens nothing, as
// neither the operator's key nor the PCRs nor what a verifier registered is there.
type config struct {
	Version     int    `json:"version"`
	Kind        string `json:"kind"`
	Slot        uint8  `json:"slot"`
	Root        []byte `json:"root"`        // TPMT_PUBLIC of the storage root key
	Gate        blob   `json:"gate"`        // the key that lets a boot use the others
	Identity    blob   `json:"identity"`    // under the root key, as the gate
	Attestation []byte `json:"attestation"` // TPMT_PUBLIC
	Enroller    []byte `json:"enroller"`    // TPMT_PUBLIC of the key of the process that ran Init,
	ResetCount  uint32 `json:"reset_count"` // in this boot; both are in the attestation key's policy

	CounterAuth authorization `json:"counter_auth"`
}

// blob is an object of the TPM while it is not loaded.
type blob struct {
	Public  []byte `json:"public"`  // TPMT_PUBLIC
	Private []byte `json:"private"` // TPM2B_PRIVATE without its size; only this TPM can read it
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
		return nil, dir.Missing(statedir.KindTPM, configFile, restoreHelp)
	}
	if errors.Is(err, keystore.ErrCorrupt) {
		return nil, fmt.Errorf("%w (%s)", err, restoreHelp)
	}
	if err != nil {
		return nil, err
	}
	if c.Kind != kindName || c.Version != configVersion {
		return nil, fmt.Errorf("%s holds a keystore of kind %q, version %d: open it by its own URI, or make it again", dir.Path(), c.Kind, c.Version)
	}
	return &c, nil
}

const restoreHelp = "make the directory again from its backup: reseal keystore init URI --dir NEW --backup FILE"

// parseBackup reads a copy of the file that Init wrote.
func parseBackup(data []byte) (*config, error) {
	var c config
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("backup: %w: %w", keystore.ErrCorrupt, err)
	}
	if c.Kind != kindName || c.Version != configVersion {
		return nil, fmt.Errorf("backup: it is of a keystore of kind %q, version %d", c.Kind, c.Version)
	}
	return &c, nil
}

func (c *config) attestationHandle() tpm2.TPMHandle {
	return tpm2.TPMHandle(attestationBase + uint32(c.Slot)*handlesPerSlot)
}

// rootHandles are where the storage root key may be persistent: where the TCG
// recommends it, or, when other software has another key there, at our own.
func (c *config) rootHandles() []tpm2.TPMHandle {
	return []tpm2.TPMHandle{rootHandle, tpm2.TPMHandle(rootBase + uint32(c.Slot)*handlesPerSlot)}
}
