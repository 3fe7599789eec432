package keystore

import (
	"crypto/ecdsa"
	"crypto/rand"
	"io"
	"log/slog"
	"time"
)

// Options are the settings that backends share. The zero value of a field
// means its default; a backend ignores what does not concern it.
type Options struct {
	// Dir is where sealed secrets and approvals are kept. It holds nothing
	// that is secret without the device.
	Dir string
	// Passphrase protects the file backend, PIN the HSM's user. They come from
	// a file, the environment or a prompt, never from a command line.
	Passphrase Secret
	PIN        Secret
	// Prompt asks a person for a secret that is not given otherwise. Nil: the
	// backend fails with a sentence that says how to give it.
	Prompt func(what string) (Secret, error)
	// OperatorKey approves boot states (ECDSA P-256). A TPM needs it, as Init and
	// as Open: who may open a share is not for the directory to say.
	OperatorKey *ecdsa.PublicKey
	// PCRs is the selection that sealing and quotes are bound to, on a TPM.
	PCRs Selection
	// Root is the storage root key of the TPM that the keystore must be on, as
	// TPMT_PUBLIC. Empty: any TPM in which the keys of the directory load.
	Root []byte
	// OwnerAuth is the authorization of the TPM's owner hierarchy, and
	// EndorsementAuth that of the endorsement hierarchy, the owner's if it is not
	// given. Init needs them where they are set, and sets those that are not;
	// afterwards they are needed to make again what the owner removed.
	OwnerAuth       Secret
	EndorsementAuth Secret
	// Backup is the content of the file that Init of a TPM makes a lost directory
	// again from, see tpm.Backup. What was sealed is erased.
	Backup []byte
	// Adopt lets Init keep the identity that a token holds already, for a new
	// directory, after the old one was lost. What was sealed is erased.
	Adopt bool
	// WorkFactor is the base-2 logarithm of the cost of the scrypt passphrase
	// derivation of the file backend.
	WorkFactor int
	// Timeout bounds each operation on a TPM, waiting for its turn included.
	Timeout time.Duration
	// Log takes what a person should know: objects on a token or files that the
	// keystore did not make, and secrets that are lost.
	Log *slog.Logger
	// Rand is the source of the randomness that is not the device's own.
	Rand io.Reader
}

// Defaults of Options.
const (
	DefaultPCRs       Selection = 1<<0 | 1<<2 | 1<<4 | 1<<7 | 1<<14
	DefaultWorkFactor           = 16 // 64 MiB and about a fifth of a second
	DefaultTimeout              = 30 * time.Second
)

// Option sets one of the Options.
type Option func(*Options)

// NewOptions applies opts to the defaults.
func NewOptions(opts ...Option) Options {
	o := Options{
		PCRs:       DefaultPCRs,
		WorkFactor: DefaultWorkFactor,
		Timeout:    DefaultTimeout,
		Log:        slog.Default(),
		Rand:       rand.Reader,
	}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// WithDir sets the directory of the sealed secrets.
func WithDir(dir string) Option { return func(o *Options) { o.Dir = dir } }

// WithPassphrase sets the passphrase of the file backend.
func WithPassphrase(p Secret) Option { return func(o *Options) { o.Passphrase = p } }

// WithPIN sets the PIN of the token's user.
func WithPIN(p Secret) Option { return func(o *Options) { o.PIN = p } }

// WithPrompt sets the function that asks a person for a passphrase or PIN.
func WithPrompt(ask func(what string) (Secret, error)) Option {
	return func(o *Options) { o.Prompt = ask }
}

// WithOperatorKey sets the ECDSA P-256 key that approves boot states.
func WithOperatorKey(k *ecdsa.PublicKey) Option { return func(o *Options) { o.OperatorKey = k } }

// WithPCRs sets the PCR selection.
func WithPCRs(s Selection) Option { return func(o *Options) { o.PCRs = s } }

// WithRoot sets the storage root key of the TPM that the keystore must be on.
func WithRoot(public []byte) Option { return func(o *Options) { o.Root = public } }

// WithOwnerAuth sets the authorization of the TPM's owner hierarchy.
func WithOwnerAuth(s Secret) Option { return func(o *Options) { o.OwnerAuth = s } }

// WithEndorsementAuth sets the authorization of the TPM's endorsement hierarchy,
// where it is not the owner's.
func WithEndorsementAuth(s Secret) Option { return func(o *Options) { o.EndorsementAuth = s } }

// WithBackup makes the keystore on a TPM again from a backup.
func WithBackup(data []byte) Option { return func(o *Options) { o.Backup = data } }

// WithAdopt keeps the identity that the token holds already.
func WithAdopt() Option { return func(o *Options) { o.Adopt = true } }

// WithWorkFactor sets the base-2 logarithm of the scrypt cost, 8 to 22.
func WithWorkFactor(logN int) Option { return func(o *Options) { o.WorkFactor = logN } }

// WithTimeout bounds each operation on a device.
func WithTimeout(d time.Duration) Option { return func(o *Options) { o.Timeout = d } }

// WithLog sets where a keystore reports what a person should know.
func WithLog(l *slog.Logger) Option { return func(o *Options) { o.Log = l } }

// WithRand sets the source of randomness.
func WithRand(r io.Reader) Option { return func(o *Options) { o.Rand = r } }
