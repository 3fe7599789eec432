package cluster

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/reseal-bft/reseal/internal/files"
)

// newOperatorKey makes and keeps the key that signs orders.
func newOperatorKey(random io.Reader, path string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(random)
	if err != nil {
		return nil, err
	}
	return key, writeKey(path, key)
}

// newBootApprovalKey makes and keeps the key that approves boot states.
func newBootApprovalKey(random io.Reader, path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), random)
	if err != nil {
		return nil, err
	}
	return key, writeKey(path, key)
}

func writeKey(path string, key any) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writeNew(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// OperatorKeyOf reads the cluster's operator key.
func OperatorKeyOf(dir Dir) (ed25519.PrivateKey, error) {
	return readKey[ed25519.PrivateKey](dir.OperatorKey(), "an Ed25519")
}

// BootApprovalKeyOf reads the cluster's boot approval key.
func BootApprovalKeyOf(dir Dir) (*ecdsa.PrivateKey, error) {
	return readKey[*ecdsa.PrivateKey](dir.BootApprovalKey(), "an ECDSA")
}

func readKey[K any](path, kind string) (K, error) {
	var none K
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return none, fmt.Errorf("there is no key %s: operators' commands need the directory that `reseal init` made", path)
	}
	if err != nil {
		return none, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return none, fmt.Errorf("%s can be read by others (mode %04o): run chmod 600 on it", path, info.Mode().Perm())
	}
	text, err := files.Read(path, maxFile)
	if err != nil {
		return none, err
	}
	block, rest := pem.Decode(text)
	if block == nil || len(rest) != 0 {
		return none, fmt.Errorf("%s is not one PEM block", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return none, fmt.Errorf("%s: %w", path, err)
	}
	key, ok := parsed.(K)
	if !ok {
		return none, fmt.Errorf("%s does not hold %s private key", path, kind)
	}
	return key, nil
}
