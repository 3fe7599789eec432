package transport

import (
	"context"
	"crypto"
	"crypto/rand"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// slowIdentity counts what it signs, and may wait for a release.
type slowIdentity struct {
	crypto.Signer
	signed  atomic.Int64
	release chan struct{}
}

func (s *slowIdentity) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	s.signed.Add(1)
	if s.release != nil {
		<-s.release
	}
	return s.Signer.Sign(random, digest, opts)
}

// voucherOf starts a replica that vouches by a signer; nil: that does not. Its address is taken into
// the member's.
func voucherOf(t *testing.T, m *member, signer crypto.Signer) *Transport {
	t.Helper()
	certificate, err := Credential(m.identity, cluster, m.peer.ID, Term{}, newEpochKey(t))
	require.NoError(t, err)
	tr, err := New(Config{
		Cluster: cluster, Self: m.peer.ID, Listen: "127.0.0.1:0", Certificate: certificate, Identity: signer, Handler: func(Sender, []byte) {},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tr.Close()) })
	tr.HandleClient("reseal/ask", func(_ context.Context, _ *Sender, request []byte) ([]byte, error) { return request, nil })
	m.peer.Address = tr.Addr().String()
	return tr
}

func dialTest(t *testing.T, to Peer) *Client {
	t.Helper()
	c, err := Dial(cluster, to)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func TestWhoOnceHadTheIdentityKeyIsNotTheReplica(t *testing.T) {
	m := newMembers(t, 2)
	signer := &slowIdentity{Signer: m[0].identity}
	tr := voucherOf(t, m[0], signer)
	c := dialTest(t, m[0].peer)
	for range 3 {
		answer, err := c.CallVouched(t.Context(), time.Hour, "reseal/ask", []byte("hello"))
		require.NoError(t, err)
		require.Equal(t, "hello", string(answer))
	}
	require.EqualValues(t, 1, signer.signed.Load(), "it is asked once in the time")
	_, err := c.CallVouched(t.Context(), 0, "reseal/ask", nil)
	require.NoError(t, err)
	require.EqualValues(t, 2, signer.signed.Load())

	// The replica puts on another key: the client finds out, and connects anew.
	other, err := Credential(m[0].identity, cluster, 1, Term{Epoch: 2}, newEpochKey(t))
	require.NoError(t, err)
	tr.SetCertificate(other)
	_, err = c.CallVouched(t.Context(), 0, "reseal/ask", nil)
	require.ErrorIs(t, err, errNotVouched)
	_, err = c.CallVouched(t.Context(), 0, "reseal/ask", nil)
	require.NoError(t, err)

	// Somebody has its credential, and vouches by what he has: nothing, a key of his own, or the
	// word that the replica gave another.
	for _, his := range []crypto.Signer{nil, m[1].identity, replayed{m[0].identity}} {
		voucherOf(t, m[0], his)
		c := dialTest(t, m[0].peer)
		_, err = c.Call(t.Context(), "reseal/ask", nil)
		require.NoError(t, err, "its dates are good")
		_, err = c.CallVouched(t.Context(), time.Hour, "reseal/ask", nil)
		require.Error(t, err, "%T", his)
	}
}

// replayed signs what it signed before, for another nonce.
type replayed struct{ crypto.Signer }

func (r replayed) Sign(_ io.Reader, _ []byte, opts crypto.SignerOpts) ([]byte, error) {
	return r.Signer.Sign(rand.Reader, vouchDigest(cluster, 1, make([]byte, 32), bft.Digest{1}), opts)
}

// However many ask, the device signs once at a time, for all who asked meanwhile: more than have
// calls in flight.
func TestOneSignatureVouchesForAllWhoAsk(t *testing.T) {
	m := newMembers(t, 1)
	signer := &slowIdentity{Signer: m[0].identity, release: make(chan struct{})}
	tr := voucherOf(t, m[0], signer)
	v := &voucher{t: tr}
	var asking sync.WaitGroup
	ask := func(i int) {
		asking.Go(func() {
			nonce := make([]byte, nonceSize)
			nonce[0], nonce[1] = byte(i), byte(i>>8)
			answer, err := v.serve(t.Context(), nil, nonce)
			require.NoError(t, err)
			if i%500 != 0 {
				return
			}
			_, err = vouched(cluster, 1, m[0].peer.Identity, nonce, answer)
			require.NoError(t, err)
			nonce[2] = 1
			_, err = vouched(cluster, 1, m[0].peer.Identity, nonce, answer)
			require.ErrorIs(t, err, errNotVouched, "it was not asked by this one")
			nonce[2] = 0
			_, err = vouched(cluster, 2, m[0].peer.Identity, nonce, answer)
			require.ErrorIs(t, err, errNotVouched, "it is of another replica")
		})
	}
	waiting := func() int {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.next == nil {
			return 0
		}
		return len(v.next.asked)
	}
	ask(0)
	eventually(t, func() bool { return signer.signed.Load() == 1 }, "the first is signed for")
	const many = 5000
	for i := range many {
		ask(1 + i)
	}
	eventually(t, func() bool { return waiting() == many }, "all wait for the second")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range many {
		_, err := v.serve(gone, nil, append(make([]byte, nonceSize-1), 9))
		require.ErrorIs(t, err, context.Canceled)
	}
	require.Equal(t, many, waiting(), "who gives up leaves nothing")
	close(signer.release)
	asking.Wait()
	require.EqualValues(t, 2, signer.signed.Load())
	_, err := v.serve(t.Context(), nil, make([]byte, nonceSize-1))
	require.Error(t, err)
}
