package transport

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/reseal-bft/reseal/bft"
)

// Peer is another replica.
type Peer struct {
	ID bft.ReplicaID
	// Address is host:port.
	Address string
	// Identity is the public key of the peer's identity, on P-256. It is pinned.
	Identity *ecdsa.PublicKey
}

// same reports whether nothing about the peer has changed.
func (p Peer) same(q Peer) bool {
	return p.ID == q.ID && p.Address == q.Address && p.Identity != nil && q.Identity != nil && p.Identity.Equal(q.Identity)
}

// Term is the time that a credential is for: an epoch, and the digest of the block that it builds
// on. Nobody knows that before the epoch begins: so no credential is made ahead.
type Term struct {
	Epoch bft.Epoch
	Base  bft.Digest
}

// Sender is who sent a frame or made a call: a replica, the epoch key that its identity has
// certified, and for which time.
type Sender struct {
	ID       bft.ReplicaID
	Term     Term
	EpochKey ed25519.PublicKey
}

// CredentialLife is how long a credential is valid, and how much the clocks of two replicas may
// differ. Among replicas it ends with its epoch (see [Config].Admit), by which clocks do not
// matter; the time is for clients, which know no epoch.
const CredentialLife = 24 * time.Hour

// Credential issues the TLS certificate of a replica: a leaf for its epoch key in an epoch, signed
// by its identity key (ECDSA on P-256), which is used once.
func Credential(identity crypto.Signer, cluster bft.ClusterID, id bft.ReplicaID, term Term, epochKey ed25519.PrivateKey) (tls.Certificate, error) {
	return credential(identity, cluster, id, term, epochKey, time.Now())
}

func credential(identity crypto.Signer, cluster bft.ClusterID, id bft.ReplicaID, term Term, epochKey ed25519.PrivateKey, now time.Time) (tls.Certificate, error) {
	public, ok := identity.Public().(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return tls.Certificate{}, errors.New("the identity key is not ECDSA on P-256: make it with one of the keystores")
	}
	// Derived from the key, the serial number is unique as long as keys are.
	serial := sha256.Sum256(epochKey.Public().(ed25519.PublicKey))
	leaf := &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(serial[:16]),
		Subject:               pkix.Name{CommonName: fmt.Sprintf("replica %d", id)},
		NotBefore:             now.Add(-CredentialLife),
		NotAfter:              now.Add(CredentialLife),
		URIs:                  []*url.URL{replicaURI(cluster, id, term)},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	issuer := &x509.Certificate{
		Subject:            pkix.Name{CommonName: fmt.Sprintf("identity of replica %d", id)},
		SignatureAlgorithm: x509.ECDSAWithSHA256,
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, issuer, epochKey.Public(), identity)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certify the epoch key with the identity key: %w", err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certify the epoch key with the identity key: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: epochKey, Leaf: parsed}, nil
}

func replicaURI(cluster bft.ClusterID, id bft.ReplicaID, term Term) *url.URL {
	return &url.URL{Scheme: "reseal", Host: hex.EncodeToString(cluster[:]), Path: fmt.Sprintf("/replica/%d/epoch/%d/%x", id, term.Epoch, term.Base[:])}
}

// claimed returns the replica and the time that a leaf names.
func claimed(cluster bft.ClusterID, leaf *x509.Certificate) (bft.ReplicaID, Term, error) {
	if len(leaf.URIs) != 1 {
		return 0, Term{}, errors.New("its certificate names no replica")
	}
	uri := leaf.URIs[0]
	if uri.Scheme != "reseal" || uri.Host != hex.EncodeToString(cluster[:]) {
		return 0, Term{}, errors.New("its certificate is of another cluster")
	}
	path := strings.Split(uri.Path, "/") // "", "replica", ID, "epoch", EPOCH, BASE
	if len(path) != 6 {
		return 0, Term{}, errNoTerm
	}
	id, err := strconv.ParseUint(path[2], 10, 16)
	epoch, bad := strconv.ParseUint(path[4], 10, 64)
	base, odd := hex.DecodeString(path[5])
	if err != nil || bad != nil || odd != nil || len(base) != len(bft.Digest{}) || id == 0 {
		return 0, Term{}, errNoTerm
	}
	term := Term{bft.Epoch(epoch), bft.Digest(base)}
	if replicaURI(cluster, bft.ReplicaID(id), term).String() != uri.String() {
		return 0, Term{}, errNoTerm
	}
	return bft.ReplicaID(id), term, nil
}

var errNoTerm = errors.New("its certificate names no replica and epoch")

// CheckCredential checks that the leaf of a [Credential] was issued by the replica's pinned
// identity, for this cluster and this time, and tells whose it is. It is what both ends of a
// connection ask.
func CheckCredential(cluster bft.ClusterID, id bft.ReplicaID, identity *ecdsa.PublicKey, leaf *x509.Certificate, now time.Time) (Sender, error) {
	epochKey, ok := leaf.PublicKey.(ed25519.PublicKey)
	if !ok {
		return Sender{}, errors.New("its certificate is not over an Ed25519 key")
	}
	named, term, err := claimed(cluster, leaf)
	if err != nil {
		return Sender{}, err
	}
	if named != id {
		return Sender{}, fmt.Errorf("its certificate names replica %d", named)
	}
	digest := sha256.Sum256(leaf.RawTBSCertificate)
	if leaf.SignatureAlgorithm != x509.ECDSAWithSHA256 || identity == nil || !ecdsa.VerifyASN1(identity, digest[:], leaf.Signature) {
		return Sender{}, errors.New("its certificate was not issued by the identity that is pinned for it")
	}
	if leaf.NotAfter.Sub(leaf.NotBefore) > 2*CredentialLife {
		return Sender{}, errors.New("its certificate is valid for longer than any that a replica makes")
	}
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return Sender{}, fmt.Errorf("its certificate is valid from %s to %s: check the clocks, or renew it",
			leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return Sender{ID: id, Term: term, EpochKey: epochKey}, nil
}

// dialTLS is the configuration for a connection to a peer. The certificate is nil for a client, and
// so is admit.
func dialTLS(cluster bft.ClusterID, to Peer, certificate func() *tls.Certificate, admit func(Sender) error) *tls.Config {
	config := baseTLS()
	config.InsecureSkipVerify = true // VerifyConnection checks against the pinned identity instead
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return fmt.Errorf("replica %d at %s shows no certificate", to.ID, to.Address)
		}
		sender, err := CheckCredential(cluster, to.ID, to.Identity, state.PeerCertificates[0], time.Now())
		if err == nil && admit != nil {
			err = admit(sender)
		}
		if err != nil {
			return fmt.Errorf("%s is not replica %d: %w", to.Address, to.ID, err)
		}
		return nil
	}
	if certificate != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate(), nil }
	}
	return config
}

// listenTLS is the configuration of a replica's server. Verify judges the leaf of a caller that
// shows one.
func listenTLS(certificate func() *tls.Certificate, verify func(leaf *x509.Certificate) error) *tls.Config {
	config := baseTLS()
	config.NextProtos = []string{protocol, "h2"}
	config.ClientAuth = tls.RequestClientCert
	config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate(), nil }
	config.VerifyConnection = func(state tls.ConnectionState) error {
		switch len(state.PeerCertificates) {
		case 0:
			return nil // a client
		case 1:
			return verify(state.PeerCertificates[0])
		}
		return errors.New("a connection was refused: who is on it shows more than one certificate")
	}
	return config
}

// baseTLS is what both ends have in common. The key exchanges are those that cost a replica little:
// whoever calls chooses among them, and one on P-521 takes ten times the time of others.
func baseTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256},
	}
}
