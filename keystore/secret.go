package keystore

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/reseal-bft/reseal/internal/files"
)

// Secret is a passphrase, a PIN or a key. It does not print; Reveal is the one
// way to its bytes.
type Secret struct{ b []byte }

const redacted = "[secret]"

// NewSecret takes ownership of b.
func NewSecret(b []byte) Secret { return Secret{b: b} }

// Reveal returns the bytes themselves, not a copy.
func (s Secret) Reveal() []byte { return s.b }

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return len(s.b) == 0 }

// Equal compares in constant time.
func (s Secret) Equal(t Secret) bool { return subtle.ConstantTimeCompare(s.b, t.b) == 1 }

// Wipe overwrites the bytes. Copies that the runtime or a library made are out
// of its reach.
func (s Secret) Wipe() { clear(s.b) }

// String, GoString, Format, LogValue, MarshalText and MarshalJSON keep a secret
// out of logs, errors and files.
func (s Secret) String() string               { return redacted }
func (s Secret) GoString() string             { return redacted }
func (s Secret) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte(redacted)) }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// maxSecretFile bounds a file that a secret is read from, in bytes.
const maxSecretFile = 4 << 10

// SecretFrom reads a secret from "file:/path" or "env:NAME". One line end after
// it is not part of it.
func SecretFrom(source string) (Secret, error) {
	kind, name, _ := strings.Cut(source, ":")
	var data []byte
	switch kind {
	case "env":
		data = []byte(os.Getenv(name))
	case "file":
		var err error
		if data, err = files.Read(name, maxSecretFile); err != nil {
			return Secret{}, err
		}
	default:
		return Secret{}, errors.New("write file:/path or env:NAME")
	}
	data = bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r"))
	if len(data) == 0 {
		return Secret{}, fmt.Errorf("%s %s is empty", kind, name)
	}
	return NewSecret(data), nil
}

// Fingerprint returns "SHA256:" and the base64 of the SHA-256 of a public key's
// PKIX encoding, or "none" for a key that has no such encoding.
func Fingerprint(pub any) string {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "none"
	}
	sum := sha256.Sum256(der)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}
