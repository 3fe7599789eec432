package keystore

import (
	"crypto"
	"crypto/sha256"
)

// MaxSecret is the largest secret, in bytes, that a keystore seals.
const MaxSecret = 1024

// Keystore holds a replica's identity key and the secrets of its epochs.
// All methods are safe for concurrent use.
//
// A process opens what was sealed, then claims the boot, and then uses the
// identity key. A device that knows which boot it is in (a TPM) holds every
// process to that order: nothing that is sealed opens after Claim in the same
// boot, to nobody, and the identity key answers only to who claimed it. Other
// devices take Claim and do nothing.
type Keystore interface {
	// Identity returns the ECDSA P-256 identity key. The private key was made
	// in the device and cannot be extracted from it. Its Sign method takes
	// digests of 32 bytes and returns ASN.1 DER, as crypto/ecdsa does. On a TPM
	// it fails with ErrUnclaimed before Claim.
	Identity() crypto.Signer

	// Seal stores a secret of at most MaxSecret bytes for an epoch that is not
	// earlier than the last that this process advanced to (ErrErased), replacing
	// what was sealed for that epoch.
	// On return it is on disk, and it survives the Advance to its epoch. Beside
	// the current epoch's, one secret is kept: sealing for a later epoch drops
	// what was sealed for another later one. It works before and after Claim.
	Seal(epoch uint64, secret []byte) error

	// Unseal returns the secret of the current epoch, or of a later one that
	// was sealed ahead of its Advance: ErrNotFound when none was sealed,
	// ErrErased when the epoch is over, ErrNotApproved when the device refuses
	// because of the state the machine booted into, ErrClaimed when the boot was
	// claimed. A refusal that came from the device itself is a *RefusedError.
	// The caller wipes the secret.
	Unseal(epoch uint64) ([]byte, error)

	// Claim makes this process the only user of the identity and attestation
	// keys in this boot, and ends Unseal in it, for this process too. It is
	// called once the secrets are open. A second call by the same process does
	// nothing; another process gets ErrClaimed until the machine is reset, and
	// ErrNotApproved means that the machine did not boot into an approved state,
	// or into one whose approval was revoked. A keystore whose device knows no
	// boots returns nil.
	Claim() error

	// Advance makes epoch the current one, whether something was sealed for it
	// or not. Afterwards nothing that was sealed for an earlier epoch can be
	// unsealed, not even from a copy of the disk; what was sealed for a later one
	// may be dropped when the epoch changes. It is idempotent, needs no Unseal (so it works after
	// Claim), and a crash at any point leaves either the old epoch or the new
	// one. Epochs may be skipped; in a process they never go back (ErrErased).
	//
	// Which epoch is current is the caller's to say, as the group certified it:
	// where what was found on disk names a later one, Seal and Advance remove that,
	// and it was worth nothing. What was erased stays so.
	Advance(epoch uint64) error

	// Status describes the device and the state of the keystore.
	Status() (Status, error)

	// Close releases the device. What is sealed stays sealed.
	Close() error
}

// Attester is implemented by keystores on a TPM: they can prove to others what
// they are and what the machine booted.
type Attester interface {
	// AttestationKey returns the public area of the attestation key, as the
	// TPM marshals it (TPMT_PUBLIC).
	AttestationKey() []byte

	// DeviceID names the TPM that approvals are to be made for, see DeviceID.
	DeviceID() [sha256.Size]byte

	// Quote signs a nonce of MinNonce to MaxNonce bytes with the attestation
	// key, together with the PCRs of the keystore's selection, the time since
	// the machine was reset, and the approval counter. It fails with
	// ErrUnclaimed before Claim, so the PCRs are those of the claimed boot: see
	// Capped.
	Quote(nonce []byte) (*Quote, error)

	// Enrollment returns what a verifier needs to know this device again. It works
	// in the process that made the keystore, and after Claim.
	Enrollment() (*Enrollment, error)

	// ActivateCredential returns the secret of a credential that was made for
	// this device by MakeCredential.
	ActivateCredential(c *Credential) ([]byte, error)

	// ReadPCRs returns the PCRs of the keystore's selection.
	ReadPCRs() ([]PCRValue, error)

	// Extend folds a measurement into a PCR of the SHA-256 bank.
	Extend(pcr int, digest [32]byte) error

	// AddApproval stores an operator's approval of a boot state, in which
	// Unseal then works.
	AddApproval(a *Approval) error

	// RevokeApprovals makes the device refuse every approval of a version up to
	// and including upTo, for good, and returns the lowest version that is not
	// revoked: when that is not above upTo, the device has far to count, and the
	// call is to be made again. It does nothing when it was done already. Versions are each
	// TPM's own (Status.ApprovalVersion).
	RevokeApprovals(upTo uint64) (uint64, error)
}

// Held tells whether the secret of an epoch is there: Status tries to open it,
// since a file by its name proves nothing.
type Held struct {
	Epoch   uint64 `json:"epoch"`
	Opens   bool   `json:"opens"`
	Problem string `json:"problem,omitempty"` // why it does not open
}

// Status describes a keystore to people and programs.
type Status struct {
	Kind     string `json:"kind"`     // "tpm", "pkcs11" or "file"
	Device   string `json:"device"`   // manufacturer and model, as the device says
	Identity string `json:"identity"` // fingerprint of the identity key, see Fingerprint
	Epoch    uint64 `json:"epoch"`    // the current epoch, 0 before the first Advance
	Software bool   `json:"software"` // true when no hardware protects the keys

	Counter         uint64    `json:"counter,omitempty"`          // TPM: the counter that sealing is bound to
	ResetCount      uint32    `json:"reset_count,omitempty"`      // TPM: boots since it was last cleared
	PCRs            Selection `json:"pcrs,omitempty"`             // TPM: the PCRs that sealing is bound to
	Approvals       int       `json:"approvals,omitempty"`        // TPM: stored approvals of boot states
	ApprovalVersion uint64    `json:"approval_version,omitempty"` // TPM: lowest version of an approval that is not revoked

	Held []Held `json:"held"` // what is sealed for this epoch and later ones, tried at this moment

	Capabilities []string `json:"capabilities"` // what the device does, a sentence each
	Cautions     []string `json:"cautions"`     // what it cannot do, and what that means
}
