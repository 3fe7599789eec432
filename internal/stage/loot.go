package stage

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/cluster"
)

// Loot is what somebody with root's rights carries away from a running replica.
type Loot struct {
	// Disk is the directory with the copy of the sealed secrets, and Epoch the one that they were
	// taken in.
	Disk  string
	Epoch bft.Epoch
	// Device says how the device, asked by another process in that boot, refused to open them; nil
	// for one that cannot refuse.
	Device error
	// Credential is the one by which the replica is known to the others, with its private key out
	// of the process's memory; nil when the memory cannot be read, which takes root.
	Credential *tls.Certificate
}

// Plunder takes from a running replica all that can be copied: its sealed secrets to a new
// directory, and its credential.
func (m *Machine) Plunder(ctx context.Context, to string, epoch bft.Epoch) (*Loot, error) {
	if m.replica == nil {
		return nil, fmt.Errorf("replica %d does not run", m.ID)
	}
	l := &Loot{Disk: to, Epoch: epoch}
	if err := m.BackUp(to); err != nil {
		return nil, err
	}
	if m.TPM != nil {
		if l.Device = m.openElsewhere(ctx, epoch); l.Device == nil {
			return nil, fmt.Errorf("the TPM of replica %d opened the share of epoch %d to another process in the same boot", m.ID, epoch)
		}
	}
	leaf, err := presented(ctx, m.Settings.Listen)
	if err != nil {
		return nil, err
	}
	public, ok := leaf.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("replica %d shows a credential over a %T", m.ID, leaf.PublicKey)
	}
	key, err := findKey(m.replica.PID(), public)
	if errors.Is(err, os.ErrPermission) {
		return l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("memory of replica %d: %w", m.ID, err)
	}
	l.Credential = &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}
	return l, nil
}

// openElsewhere asks the device for a secret from this process, beside the replica.
func (m *Machine) openElsewhere(ctx context.Context, epoch bft.Epoch) (refusal error) {
	ks, err := cluster.OpenKeystore(ctx, m.Dir, m.Settings)
	if err != nil {
		return err
	}
	secret, err := ks.Unseal(uint64(epoch))
	clear(secret)
	return errors.Join(err, ks.Close())
}

// Admits asks a replica whether it takes the bearer of a credential for the one that it names. It
// returns nil when it does.
func (m *Machine) Admits(ctx context.Context, credential *tls.Certificate) error {
	conn, err := dial(ctx, m.Settings.Listen, credential)
	if err != nil {
		return err
	}
	defer conn.Close()
	// A server refuses a client's certificate after the client's side of the handshake is over (RFC
	// 8446, section 4.4.2.4): the answer to the first frames tells.
	preface := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	if _, err := io.WriteString(conn, preface); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

// presented returns the certificate that a replica shows to everybody.
func presented(ctx context.Context, address string) (*x509.Certificate, error) {
	conn, err := dial(ctx, address, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

func dial(ctx context.Context, address string, credential *tls.Certificate) (*tls.Conn, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, InsecureSkipVerify: true} // who it is does not matter here
	if credential != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return credential, nil }
	}
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	conn, err := (&tls.Dialer{NetDialer: &net.Dialer{}, Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return conn.(*tls.Conn), conn.SetDeadline(time.Now().Add(lookPatience))
}

// findKey looks through a process's memory for the private key that belongs to a public one:
// Ed25519 keys are kept as seed and public key, one behind the other.
func findKey(pid int, public ed25519.PublicKey) (ed25519.PrivateKey, error) {
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, err
	}
	defer memory.Close()
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to int64
		var access string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &access); err != nil || !strings.HasPrefix(access, "rw") {
			continue
		}
		if key := keyIn(memory, from, to, public); key != nil {
			return key, nil
		}
	}
	return nil, errors.New("the key of its credential is not in it")
}

// keyIn looks through a span of memory, a piece at a time.
func keyIn(memory io.ReaderAt, from, to int64, public ed25519.PublicKey) ed25519.PrivateKey {
	const piece = 16 << 20
	for at := from; at < to; at += piece - ed25519.PrivateKeySize {
		b := make([]byte, min(piece, to-at))
		n, _ := memory.ReadAt(b, at) // what is not there is not looked through
		for b = b[:n]; ; {
			i := bytes.Index(b, public)
			if i < 0 {
				break
			}
			if i >= ed25519.SeedSize {
				if key := ed25519.NewKeyFromSeed(b[i-ed25519.SeedSize : i]); public.Equal(key.Public()) {
					return key
				}
			}
			b = b[i+1:]
		}
	}
	return nil
}
