package transport

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// Everything that a credential says is checked; each case changes one thing of a good one.
func TestCheckCredential(t *testing.T) {
	m := newMembers(t, 1)[0]
	m.epochKey = newEpochKey(t)
	term := Term{Epoch: 7, Base: bft.Digest{0xab, 2, 3}}
	base := fmt.Sprintf("%x", term.Base[:])
	now := time.Now()
	good := func() *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(1), NotBefore: now.Add(-CredentialLife), NotAfter: now.Add(CredentialLife),
			URIs: []*url.URL{replicaURI(cluster, 2, term)},
		}
	}
	issue := func(leaf *x509.Certificate, key any) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key, m.identity)
		require.NoError(t, err)
		parsed, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		return parsed
	}
	check := func(leaf *x509.Certificate) error {
		sender, err := CheckCredential(cluster, 2, m.peer.Identity, leaf, now)
		if err == nil {
			require.Equal(t, Sender{ID: 2, Term: term, EpochKey: m.epochKey.Public().(ed25519.PublicKey)}, sender)
		}
		return err
	}
	require.NoError(t, check(issue(good(), m.epochKey.Public())))
	named := func(path string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.URIs[0].Path = path }
	}
	for name, alter := range map[string]func(*x509.Certificate){
		"no name":               func(c *x509.Certificate) { c.URIs = nil },
		"two names":             func(c *x509.Certificate) { c.URIs = append(c.URIs, replicaURI(cluster, 3, term)) },
		"another replica":       func(c *x509.Certificate) { c.URIs[0] = replicaURI(cluster, 3, term) },
		"another cluster":       func(c *x509.Certificate) { c.URIs[0] = replicaURI(bft.ClusterID{9}, 2, term) },
		"another scheme":        func(c *x509.Certificate) { c.URIs[0].Scheme = "https" },
		"a number spelt anew":   named("/replica/02/epoch/7/" + base),
		"an epoch spelt anew":   named("/replica/2/epoch/+7/" + base),
		"a block spelt anew":    named("/replica/2/epoch/7/" + strings.ToUpper(base)),
		"no epoch":              named("/replica/2"),
		"no block":              named("/replica/2/epoch/7"),
		"a block cut short":     named("/replica/2/epoch/7/" + base[2:]),
		"replica 0":             named("/replica/0/epoch/7/" + base),
		"a path that goes on":   named("/replica/2/epoch/7/" + base + "/x"),
		"a query":               func(c *x509.Certificate) { c.URIs[0].RawQuery = "x" },
		"not valid yet":         func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) },
		"valid no more":         func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) },
		"valid for too long":    func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(time.Minute) },
		"signed by other rules": func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA384 },
	} {
		leaf := good()
		alter(leaf)
		require.Error(t, check(issue(leaf, m.epochKey.Public())), name)
	}
	require.Error(t, check(issue(good(), &m.identity.PublicKey)), "a key of another kind")
	stranger := newMembers(t, 1)[0]
	_, err := CheckCredential(cluster, 2, stranger.peer.Identity, issue(good(), m.epochKey.Public()), now)
	require.ErrorContains(t, err, "not issued by the identity")
	_, err = CheckCredential(cluster, 2, nil, issue(good(), m.epochKey.Public()), now)
	require.Error(t, err)
}

// A peer whose address or identity has changed is another one, whose connections are made anew.
func TestWhatMakesAPeerTheSame(t *testing.T) {
	members := newMembers(t, 2)
	p := members[0].peer
	require.True(t, p.same(p))
	for name, alter := range map[string]func(*Peer){
		"id":          func(q *Peer) { q.ID++ },
		"address":     func(q *Peer) { q.Address += "0" },
		"identity":    func(q *Peer) { q.Identity = members[1].peer.Identity },
		"no identity": func(q *Peer) { q.Identity = nil },
	} {
		q := p
		alter(&q)
		require.False(t, p.same(q), name)
		require.False(t, q.same(p), name)
	}
}

// Older versions of TLS are refused, and sessions are not resumed: each connection shows its credential.
func TestVersionsOfTLS(t *testing.T) {
	m := newMembers(t, 1)[0]
	m.start(t, m.config(t, nil))
	cache := tls.NewLRUClientSessionCache(4)
	for range 2 {
		cfg := hostile(m)
		cfg.ClientSessionCache = cache
		conn, err := net.Dial("tcp", m.peer.Address)
		require.NoError(t, err)
		secured := tls.Client(conn, cfg)
		require.NoError(t, secured.Handshake())
		require.False(t, secured.ConnectionState().DidResume)
		require.EqualValues(t, tls.VersionTLS13, secured.ConnectionState().Version)
		_, _ = secured.Read(make([]byte, 1)) // the server's first frame; a ticket would come before it
		require.NoError(t, secured.Close())
	}
	cfg := hostile(m)
	cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	conn, err := net.Dial("tcp", m.peer.Address)
	require.NoError(t, err)
	defer conn.Close()
	require.Error(t, tls.Client(conn, cfg).Handshake())
}

// Memory of a connection that has ended, whatever its calls held and when, is held no more.
func TestWhatAConnectionHeldEndsWithIt(t *testing.T) {
	c := newCallers("clients", 4, 0, 1000, nil)
	k := &caller{of: c, address: "a", connected: true, turned: time.Now()}
	c.conns[k] = struct{}{}
	c.hold(k, 300)
	k.turned = k.turned.Add(-2 * callTime)
	c.hold(k, 200) // what was held before counts for one more turn
	require.Equal(t, 500, c.held)
	k.turned = k.turned.Add(-2 * callTime)
	c.hold(k, 100)
	require.Equal(t, 300, c.held, "what was held for longer counts no more")
	c.hold(k, -10000)
	require.Zero(t, c.held, "no more is given back than was held")
	c.hold(k, 400)
	c.mu.Lock()
	c.drop(k)
	c.mu.Unlock()
	require.Zero(t, c.held)
	c.hold(k, 400)
	require.Zero(t, c.held, "it has ended")
}

// A client's port says nothing of who it is, nor does the way in which its address is written, nor
// which address of its IPv6 network it takes.
func TestTheHostOfAnAddress(t *testing.T) {
	for text, host4 := range map[string]string{"192.0.2.1:5": "192.0.2.1", "[::ffff:192.0.2.1]:77": "192.0.2.1", "[2001:db8::1]:7": "2001:db8::/64", "[::1]:7": "::1"} {
		address, err := net.ResolveTCPAddr("tcp", text)
		require.NoError(t, err)
		require.Equal(t, host4, host(address))
	}
}
