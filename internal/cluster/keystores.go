package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/device"
	"github.com/reseal-bft/reseal/keystore/tpm"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// Kind is a kind of keystore that init makes.
type Kind string

// The kinds of keystores.
const (
	// SWTPM is a software TPM of its own for each replica: everything works as with a real one, and
	// nothing is protected from who can read its files.
	SWTPM Kind = "swtpm"
	// SoftHSM is a SoftHSM token of its own for each replica: shares are wrapped under a key of the
	// token that is destroyed with the epoch. Nothing is attested.
	SoftHSM Kind = "softhsm"
	// File is a passphrase file: no hardware, no attestation; for development.
	File Kind = "file"
)

// Kinds lists the kinds for messages.
const Kinds = "swtpm, softhsm or file"

// ParseKind reads the name of a kind.
func ParseKind(name string) (Kind, error) {
	switch kind := Kind(name); kind {
	case SWTPM, SoftHSM, File:
		return kind, nil
	}
	return "", fmt.Errorf("keystore %q is not known: choose %s", name, Kinds)
}

// Paths of a replica's keystore, relative to its directory.
const (
	tpmURI         = "tpm:unix:tpm/tpm.sock"
	fileURI        = "file:keystore"
	passphraseFile = "passphrase"
	maxSocketPath  = 107 // bytes of a Unix socket's path, on Linux
	// leastWorkFactor suffices for passphrases of 128 random bits: nobody guesses them, however fast.
	leastWorkFactor = 8
)

// resolve makes the path in a keystore's URI absolute; relative ones are below the replica's directory.
func resolve(dir ReplicaDir, uri string) (string, error) {
	for _, scheme := range []string{"tpm:unix:", "file:"} {
		path, ok := strings.CutPrefix(uri, scheme)
		if !ok || filepath.IsAbs(path) {
			continue
		}
		abs, err := filepath.Abs(filepath.Join(string(dir), path))
		if err != nil {
			return "", err
		}
		if scheme == "tpm:unix:" && len(abs) > maxSocketPath {
			return "", fmt.Errorf("%s is too long for the path of a socket (%d bytes, at most %d): choose a cluster directory with a shorter path", abs, len(abs), maxSocketPath)
		}
		return scheme + abs, nil
	}
	return uri, nil
}

// OpenKeystore opens a replica's keystore. Whose approvals open a TPM, by which registers, and
// which TPM it has to be, is taken from the genesis.
func OpenKeystore(ctx context.Context, dir ReplicaDir, r *Replica) (keystore.Keystore, error) {
	return OpenKeystoreAt(ctx, dir, r, dir.Keystore())
}

// OpenKeystoreAt opens the device of a replica's keystore with the sealed secrets of another
// directory, such as a backup.
func OpenKeystoreAt(ctx context.Context, dir ReplicaDir, r *Replica, sealed string) (keystore.Keystore, error) {
	uri, options, err := keystoreOptions(dir, r, sealed)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(uri, tpm.Scheme+":") {
		genesis, err := governance.Load(r.Genesis)
		if err != nil {
			return nil, err
		}
		founded, err := foundedOptions(genesis, r.ID)
		if err != nil {
			return nil, fmt.Errorf("keystore of replica %d: %w", r.ID, err)
		}
		options = append(options, founded...)
	}
	ks, err := device.Open(ctx, uri, options...)
	if err != nil {
		return nil, fmt.Errorf("keystore of replica %d: %w", r.ID, err)
	}
	return ks, nil
}

// KeystoreOptions are what a genesis says of a replica's keystore.
func KeystoreOptions(genesis string, id bft.ReplicaID) ([]keystore.Option, error) {
	g, err := governance.Load(genesis)
	if err != nil {
		return nil, err
	}
	return foundedOptions(g, id)
}

// foundedOptions are what the genesis says of a replica's TPM.
func foundedOptions(genesis *governance.Genesis, id bft.ReplicaID) ([]keystore.Option, error) {
	if id < 1 || int(id) > len(genesis.Members) {
		return nil, fmt.Errorf("replica %d is not in the genesis, which has members 1 to %d", id, len(genesis.Members))
	}
	if len(genesis.BootApproval) == 0 || !genesis.Attestation.Required {
		return nil, errors.New("the genesis says nothing of a TPM of this replica: this is another cluster's, or the replica needs another keystore")
	}
	parsed, err := x509.ParsePKIXPublicKey(genesis.BootApproval)
	if err != nil {
		return nil, fmt.Errorf("genesis: boot_approval: %w", err)
	}
	approval, ok := parsed.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("genesis: boot_approval: %T is not an ECDSA key", parsed)
	}
	pcrs, err := keystore.Select(genesis.Attestation.PCRs...)
	if err != nil {
		return nil, err
	}
	root := genesis.Members[id-1].StorageRoot
	return []keystore.Option{keystore.WithOperatorKey(approval), keystore.WithPCRs(pcrs), keystore.WithRoot(root)}, nil
}

// initKeystore makes a replica's keystore. Approval is the key that approves boot states; file
// keystores have no use for it.
func initKeystore(ctx context.Context, dir ReplicaDir, r *Replica, approval *ecdsa.PublicKey) (keystore.Keystore, error) {
	uri, options, err := keystoreOptions(dir, r, dir.Keystore())
	if err != nil {
		return nil, err
	}
	ks, err := device.Init(ctx, uri, append(options, keystore.WithOperatorKey(approval))...)
	if err != nil {
		return nil, fmt.Errorf("keystore of replica %d: %w", r.ID, err)
	}
	return ks, nil
}

func keystoreOptions(dir ReplicaDir, r *Replica, sealed string) (uri string, options []keystore.Option, err error) {
	if uri, err = resolve(dir, r.Keystore); err != nil {
		return "", nil, err
	}
	options = append(options, keystore.WithDir(sealed))
	if r.PassphraseFile == "" {
		return uri, options, nil
	}
	secret, err := keystore.SecretFrom("file:" + r.PassphraseFile)
	if err != nil {
		return "", nil, fmt.Errorf("passphrase of replica %d: %w: put the file back from a copy; nothing else opens what it closes", r.ID, err)
	}
	return uri, append(options, keystore.WithPassphrase(secret), keystore.WithWorkFactor(leastWorkFactor)), nil
}

// newPassphrase makes and keeps the passphrase of a file keystore.
func newPassphrase(random io.Reader, path string) error {
	var secret [16]byte
	if _, err := io.ReadFull(random, secret[:]); err != nil {
		return err
	}
	return writeNew(path, fmt.Appendf(nil, "%x\n", secret), 0o600)
}
