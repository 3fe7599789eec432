package transport

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"log/slog"
	"math/big"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/credentials"

	"github.com/reseal-bft/reseal/bft"
)

// greeted is a gate of replica 1, which knows replica 2, and a credential of that one.
func greeted(t *testing.T) (*gate, tls.Certificate) {
	members := newMembers(t, 2)
	certificate, err := Credential(members[0].identity, cluster, 1, Term{}, newEpochKey(t))
	require.NoError(t, err)
	peers, err := Credential(members[1].identity, cluster, 2, Term{}, newEpochKey(t))
	require.NoError(t, err)
	tr := &Transport{cfg: Config{Cluster: cluster, Self: 1, Log: slog.New(slog.DiscardHandler)}, ctx: context.Background(), turns: newTurns(1)}
	tr.peers = map[bft.ReplicaID]*peer{2: {Peer: members[1].peer}}
	verify := func(leaf *x509.Certificate) error {
		_, err := tr.identify(leaf)
		return err
	}
	return &gate{credentials.NewTLS(listenTLS(func() *tls.Certificate { return &certificate }, verify)), tr, new(handshakes)}, peers
}

// Whoever calls chooses the key exchange, and sends one hello again and again: those that take a
// replica's time are refused.
func TestKeyExchangesThatCostMuchAreRefused(t *testing.T) {
	for curve, taken := range map[tls.CurveID]bool{
		tls.X25519MLKEM768: true, tls.X25519: true, tls.CurveP256: true,
		tls.CurveP384: false, tls.CurveP521: false, tls.SecP256r1MLKEM768: false, tls.SecP384r1MLKEM1024: false,
	} {
		t.Run(curve.String(), func(t *testing.T) {
			g, _ := greeted(t)
			config := baseTLS()
			config.InsecureSkipVerify, config.NextProtos, config.CurvePreferences = true, []string{"h2"}, []tls.CurveID{curve}
			caller := &fed{Reader: bytes.NewReader(nil)}
			require.Error(t, tls.Client(caller, config).Handshake())
			conn := &fed{Reader: bytes.NewReader(caller.sent.Bytes())}
			_, _, err := g.ServerHandshake(conn)
			require.Error(t, err, "nothing more comes")
			require.Equal(t, taken, conn.sent.Len() > 100, "it is answered, by more than an alert")
		})
	}
}

// padded is a certificate that becomes some eighty times as large where it is parsed: of empty URIs.
func padded(t *testing.T, uris int) []byte {
	names, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: bytes.Repeat([]byte{0x86, 0}, uris)})
	require.NoError(t, err)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber:    big.NewInt(1),
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: names}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return der
}

// Whoever shows certificates, of which the first is a replica's that he has seen, and then many or
// large ones, is refused before he holds memory: by their size, or by there being more than one.
func TestCertificatesOfStrangersAreBounded(t *testing.T) {
	for name, c := range map[string]struct {
		uris int // of a second certificate; -1: there is none
		want string
	}{
		"one":            {-1, ""},
		"two":            {0, "more than one certificate"},
		"large":          {100_000, errLargeHandshake.Error()},
		"nearly as much": {2500, "more than one certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			g, peers := greeted(t)
			near, far := net.Pipe()
			defer near.Close()
			config := baseTLS()
			config.InsecureSkipVerify, config.NextProtos = true, []string{"h2"}
			if c.uris >= 0 {
				peers.Certificate = append(peers.Certificate, padded(t, c.uris))
			}
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &peers, nil }
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				conn := tls.Client(far, config)
				_ = conn.Handshake()
				_, _ = conn.Read(make([]byte, 1)) // what it is told then
			}()
			var err error
			allocates := allocated(func() { _, _, err = g.TransportCredentials.ServerHandshake(newBufferedConn(enter(t, g, near))) })
			require.NoError(t, near.Close())
			<-ended
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
			require.Less(t, allocates, uint64(4<<20), "by others of this process too")
		})
	}
}

// enter begins a handshake.
func enter(t *testing.T, g *gate, conn net.Conn) *handshake {
	h, leave := g.handshakes.enter(conn, g.t.turns)
	t.Cleanup(func() { h.finish(); leave() })
	return h
}
