package swtpm

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// CA is a local certification authority in a directory that signs the
// certificates of endorsement keys. Manufacture may be called concurrently.
type CA struct{ dir string }

// caFiles are the configuration of the authority, by name.
var caFiles = map[string]string{
	"setup.conf": `create_certs_tool = /usr/bin/swtpm_localca
create_certs_tool_config = DIR/localca.conf
create_certs_tool_options = DIR/localca.options
active_pcr_banks = sha256
`,
	"localca.conf": `statedir = DIR
signingkey = DIR/signkey.pem
issuercert = DIR/issuercert.pem
certserial = DIR/certserial
`,
	"localca.options": `--platform-manufacturer Reseal
--platform-version 2.0
--platform-model swtpm
`,
}

// NewCA prepares an authority in dir. Its keys are made with the first TPM.
func NewCA(dir string) (*CA, error) {
	for _, tool := range []string{"swtpm", "swtpm_setup"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%s is missing: run `apt-get install swtpm swtpm-tools`", tool)
		}
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("swtpm: %w", err)
	}
	if strings.ContainsAny(abs, "\n\r") {
		return nil, fmt.Errorf("swtpm: the directory %q cannot be written into a configuration file", abs)
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return nil, fmt.Errorf("swtpm: %w", err)
	}
	for name, text := range caFiles {
		text = strings.ReplaceAll(text, "DIR", abs)
		if err := os.WriteFile(filepath.Join(abs, name), []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("swtpm: %w", err)
		}
	}
	return &CA{dir: abs}, nil
}

// Manufacture makes a TPM in dir, which must not hold one: an RSA and an ECC
// endorsement key with certificates, and the SHA-256 bank. It takes most of a
// second.
func (ca *CA) Manufacture(ctx context.Context, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, stateFile)); err == nil {
		return fmt.Errorf("swtpm: there is a TPM in %s already", dir)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("swtpm: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("swtpm: %w", err)
	}
	args := []string{
		"--tpm2", "--tpmstate", dir, "--config", filepath.Join(ca.dir, "setup.conf"),
		"--create-ek-cert", "--lock-nvram", "--pcr-banks", "sha256",
	}
	if os.Geteuid() == 0 {
		// As root the tool would change to a user who cannot read dir.
		args = append(args, "--runas", "root")
	}
	cmd := exec.CommandContext(ctx, "swtpm_setup", args...)
	// The tool runs others, which end with it when ctx does; what they then leave behind lies in
	// the authority's directory.
	cmd.Env = append(os.Environ(), "TMPDIR="+ca.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("swtpm_setup: %w: %s", err, lastLine(out))
	}
	return nil
}

// Certificates returns the authority's certificates: its root and its issuer.
func (ca *CA) Certificates() ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for _, name := range []string{"swtpm-localca-rootca-cert.pem", "issuercert.pem"} {
		data, err := os.ReadFile(filepath.Join(ca.dir, name))
		if err != nil {
			return nil, fmt.Errorf("swtpm: the authority has no certificate before its first TPM: %w", err)
		}
		block, _ := pem.Decode(data)
		if block == nil {
			return nil, fmt.Errorf("swtpm: %s is no PEM file", name)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("swtpm: %s: %w", name, err)
		}
		certs = append(certs, c)
	}
	return certs, nil
}

// Roots returns the pool that endorsement certificates verify against. It holds
// the issuer too, since TPMs carry their own certificate only.
func (ca *CA) Roots() (*x509.CertPool, error) {
	certs, err := ca.Certificates()
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool, nil
}

// lastLine returns the last line of a tool's output that is not empty.
func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
