package governance

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/internal/files"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/threshold"
)

// PublicKeySize is the size in bytes of an encoded public key of the group or of a dealt secret.
const PublicKeySize = threshold.PublicKeyLen

// Genesis is what the members and operators of a cluster agree on before it starts. Its digest is
// the cluster's name and is part of everything that is signed, so two clusters never take each
// other's messages. It is kept as a JSON file and holds nothing secret.
type Genesis struct {
	// Name is for people: 1 to 64 printable ASCII characters.
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	// F and C give n = 3f + 2c + 1, see [bft.Size].
	F       int             `json:"f"`
	C       int             `json:"c"`
	Members []GenesisMember `json:"members"`
	// Operators hold the keys that sign orders; an order needs the signatures of OperatorQuorum of them.
	Operators      []ed25519.PublicKey `json:"operators"`
	OperatorQuorum int                 `json:"operator_quorum"`
	// BootApproval is the ECDSA P-256 public key (PKIX DER) whose holder approves boot states to
	// the members' TPMs (PolicyAuthorize). Empty without TPMs.
	BootApproval []byte             `json:"boot_approval,omitempty"`
	Attestation  attest.Attestation `json:"attestation"`
	// RoundInterval is the block time from the begin of an epoch to its recovery round; 0: rounds
	// begin by order or accusation only.
	RoundInterval Duration `json:"round_interval"`
	// AllowWear accepts a RoundInterval that writes the counters in the members' TPMs to death
	// within five years, see [keystore.LeastEpoch].
	AllowWear bool `json:"allow_wear,omitempty"`
	// RoundDeadline is the block time that replicas have to attest, and dealers to deal; the latter
	// doubles with each attempt, up to 16 times.
	RoundDeadline Duration `json:"round_deadline"`
	// Window is the number of consecutive views that a leader serves.
	Window   int      `json:"window"`
	Timeouts Timeouts `json:"timeouts"`
}

// GenesisMember is a founding member.
type GenesisMember struct {
	// ID is the member's place in the list, from 1.
	ID bft.ReplicaID `json:"id"`
	// Address is host:port.
	Address string `json:"address"`
	// Identity is the member's identity key, ECDSA P-256, as PKIX DER.
	Identity []byte `json:"identity"`
	// EpochKey is the member's Ed25519 key until its first recovery.
	EpochKey ed25519.PublicKey `json:"epoch_key"`
	// AttestationKey is the public area (TPMT_PUBLIC) of the TPM's attestation key. Empty without TPM.
	AttestationKey []byte `json:"attestation_key,omitempty"`
	// ResetCount is the TPM's count of boots at enrolment: the first recovery must show a higher one.
	ResetCount uint32 `json:"reset_count,omitempty"`
	// StorageRoot is the public area (TPMT_PUBLIC) of the TPM's storage root key, and Slot the
	// keystore's on that TPM: approvals of boot states are bound to both, and the replica accepts
	// no other TPM. Empty without TPM.
	StorageRoot []byte `json:"storage_root,omitempty"`
	Slot        uint8  `json:"slot,omitempty"`
	// ApprovalVersion is the value of the TPM's approval counter at enrolment.
	ApprovalVersion uint64 `json:"approval_version,omitempty"`
	// EKCertificates are the TPM's endorsement certificates (DER), kept for auditors; members' keys
	// were checked against them at enrolment.
	EKCertificates [][]byte `json:"ek_certificates,omitempty"`
}

// Timeouts are the time bounds of a view, see [bft.Timeouts].
type Timeouts struct {
	View     Duration `json:"view"`
	ViewMax  Duration `json:"view_max"`
	Finalize Duration `json:"finalize"`
	Idle     Duration `json:"idle"`
	Resend   Duration `json:"resend"`
	Ahead    Duration `json:"ahead"`
}

// Bounds returns the timeouts as the core takes them.
func (t Timeouts) Bounds() bft.Timeouts {
	return bft.Timeouts{
		View: time.Duration(t.View), ViewMax: time.Duration(t.ViewMax), Finalize: time.Duration(t.Finalize),
		Idle: time.Duration(t.Idle), Resend: time.Duration(t.Resend), Ahead: time.Duration(t.Ahead),
	}
}

// maxGenesis bounds a genesis file, in bytes.
const maxGenesis = 8 << 20

// Load reads and validates a genesis file.
func Load(path string) (*Genesis, error) {
	b, err := files.Read(path, maxGenesis)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("genesis: %w: make one with `reseal init`, or copy the cluster's", err)
	}
	if err != nil {
		return nil, fmt.Errorf("genesis: %w: copy the cluster's from another member", err)
	}
	g, err := ParseGenesis(b)
	if err != nil {
		return nil, fmt.Errorf("genesis %s: %w", path, err)
	}
	return g, nil
}

// ParseGenesis reads and validates the JSON of a genesis. Unknown fields are refused: a misspelt
// setting must not pass for a default.
func ParseGenesis(b []byte) (*Genesis, error) {
	if len(b) > maxGenesis {
		return nil, fmt.Errorf("larger than %d bytes: this is no genesis file", maxGenesis)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var g Genesis
	if err := d.Decode(&g); err != nil {
		return nil, fmt.Errorf("%w: restore the file from another member", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON object: restore the file from another member")
	}
	return &g, g.Validate()
}

// Save writes a valid genesis to a new file. It never replaces one: a cluster's name hangs on it.
func (g *Genesis) Save(path string) error {
	if err := g.Validate(); err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	b, err := json.MarshalIndent(g.canonical(), "", "  ")
	if err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("genesis: %w: choose another directory, or remove the file if its cluster is gone", err)
	}
	_, err = f.Write(append(b, '\n'))
	return errors.Join(err, f.Sync(), f.Close())
}

// canonical is the genesis in the form that is hashed.
func (g *Genesis) canonical() *Genesis {
	c := *g
	c.Created = g.Created.UTC()
	return &c
}

// ClusterID is the digest of the genesis in its canonical form: compact JSON, fields in the order
// of the struct, keys of maps sorted, time in UTC. The layout of the file does not matter.
func (g *Genesis) ClusterID() bft.ClusterID {
	b, err := json.Marshal(g.canonical())
	if err != nil { // a time beyond the year 9999: Validate refuses it
		b = []byte(err.Error())
	}
	return sha256.Sum256(append([]byte(genesisDomain), b...))
}

// FoundingDigest is the digest of all but the approved boot states: members, operators, who
// approves boot states, the rest of the policy. It is measured into the boot state, which therefore
// cannot be in it.
func (g *Genesis) FoundingDigest() [sha256.Size]byte {
	c := g.canonical()
	c.Attestation.Approved = nil
	b, err := json.Marshal(c)
	if err != nil { // a time beyond the year 9999: Validate refuses it
		b = []byte(err.Error())
	}
	return sha256.Sum256(append([]byte(foundingDomain), b...))
}

// Size returns the cluster's size at genesis.
func (g *Genesis) Size() bft.Size { return bft.Size{F: g.F, C: g.C} }

// Membership describes epoch 0. The genesis must be valid.
func (g *Genesis) Membership() (*replica.Membership, error) {
	s, err := New(g)
	if err != nil {
		return nil, err
	}
	return s.Membership(), nil
}
