package softhsm

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// modulePaths are where distributions put the library.
var modulePaths = []string{
	"/usr/lib/softhsm/libsofthsm2.so",
	"/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib64/pkcs11/libsofthsm2.so",
	"/usr/local/lib/softhsm/libsofthsm2.so",
}

const (
	confFile = "softhsm2.conf"
	tokenDir = "tokens"
	confVar  = "SOFTHSM2_CONF"
	pinBytes = 16
)

// Module returns the path of the library.
func Module() (string, error) {
	for _, path := range modulePaths {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("SoftHSM is missing: run `apt-get install softhsm2`")
}

// Store is a directory of SoftHSM tokens with a configuration of its own.
type Store struct {
	dir    string
	module string
}

// New prepares a directory for tokens, or finds those that are there.
func New(dir string) (*Store, error) {
	module, err := Module()
	if err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("softhsm: %w", err)
	}
	if strings.ContainsAny(abs, "\n\r") {
		return nil, fmt.Errorf("softhsm: the directory %q cannot be written into a configuration file", abs)
	}
	if err := os.MkdirAll(filepath.Join(abs, tokenDir), 0o700); err != nil {
		return nil, fmt.Errorf("softhsm: %w", err)
	}
	conf := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
		filepath.Join(abs, tokenDir))
	s := &Store{dir: abs, module: module}
	if err := os.WriteFile(s.conf(), []byte(conf), 0o600); err != nil {
		return nil, fmt.Errorf("softhsm: %w", err)
	}
	return s, nil
}

func (s *Store) conf() string { return filepath.Join(s.dir, confFile) }

// Env returns the environment variable for other programs that use the tokens.
func (s *Store) Env() string { return confVar + "=" + s.conf() }

// Token is a token with a user PIN.
type Token struct {
	Label   string
	PINFile string // a file with the PIN, for its owner only
	Module  string
	Conf    string // SoftHSM's configuration
}

// NewToken makes a token with a random PIN, which it writes to a file in the
// directory. The tool that sets the PIN takes it on its command line, where
// other users of the machine can see it for a moment: it is a token for tests.
func (s *Store) NewToken(ctx context.Context, rand io.Reader, label string) (*Token, error) {
	pin := make([]byte, pinBytes)
	if _, err := io.ReadFull(rand, pin); err != nil {
		return nil, fmt.Errorf("softhsm: randomness: %w", err)
	}
	text := hex.EncodeToString(pin)
	t := s.Token(label)
	if err := os.WriteFile(t.PINFile, []byte(text+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("softhsm: %w", err)
	}
	cmd := exec.CommandContext(ctx, "softhsm2-util", "--init-token", "--free", "--label", label, "--pin", text, "--so-pin", text)
	cmd.Env = append(os.Environ(), s.Env())
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("softhsm2-util: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return t, nil
}

// Token returns the token of a label that NewToken made.
func (s *Store) Token(label string) *Token {
	return &Token{Label: label, Module: s.module, Conf: s.conf(), PINFile: filepath.Join(s.dir, url.PathEscape(label)+".pin")}
}

// URI returns the address by which a keystore opens the token.
func (t *Token) URI() string {
	return "pkcs11:token=" + url.PathEscape(t.Label) + "?" + t.Query()
}

// Query returns the part of the URI after the question mark.
func (t *Token) Query() string {
	return fmt.Sprintf("module-path=%s&x-softhsm2-conf=%s&pin-source=file:%s",
		escapeQuery(t.Module), escapeQuery(t.Conf), escapeQuery(t.PINFile))
}

// escapeQuery escapes what separates attributes in a query, and leaves slashes.
func escapeQuery(path string) string {
	return strings.ReplaceAll(url.PathEscape(path), "%2F", "/")
}
