package transport

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	grpcpeer "google.golang.org/grpc/peer"

	"github.com/reseal-bft/reseal/bft"
)

// methodVouch has a replica's identity key say, in answer to a nonce, which key the replica shows.
//
// A credential alone says only that the identity key has signed it at some time, and its dates are
// what the signer made them: whoever once had the use of the identity key has credentials for all
// time. Replicas that know the epoch ask the log whether the key counts. Who does not know it, as a
// client, or a replica that is behind, asks for this.
const methodVouch = "reseal/vouch"

const (
	nonceSize = 32
	// maxVouched is the number of nonces that one signature answers.
	maxVouched = 256
	// vouchRest is how long the device rests after a signature, in multiples of what that took: so
	// whoever asks keeps it busy for a third of the time at most.
	vouchRest = 2
)

var errNotVouched = errors.New("it does not prove to be the replica that it was, or is: who answers has a credential that the identity key signed at some time, and no more")

const vouchDomain = "reseal/v1/vouch\x00"

// vouchDigest is what the identity key signs: the key, for all who have sent a nonce.
func vouchDigest(cluster bft.ClusterID, id bft.ReplicaID, key ed25519.PublicKey, nonces []byte) []byte {
	b := append([]byte(vouchDomain), cluster[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(id))
	digest := sha256.Sum256(append(append(b, key...), nonces...))
	return digest[:]
}

// voucher has the identity key sign, one signature at a time, for all who asked meanwhile. Safe for
// concurrent use.
type voucher struct {
	t *Transport

	mu      sync.Mutex
	next    *vouching // gathers nonces while the device works or rests
	working bool
}

type vouching struct {
	nonces []byte
	done   chan struct{} // closed when answer or err is set
	answer []byte
	err    error
}

func (v *voucher) serve(ctx context.Context, _ *Sender, nonce []byte) ([]byte, error) {
	if len(nonce) != nonceSize {
		return nil, errors.New("malformed call")
	}
	q, err := v.join(nonce)
	if err != nil {
		return nil, err
	}
	select {
	case <-q.done:
		return q.answer, q.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (v *voucher) join(nonce []byte) (*vouching, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.next == nil {
		v.next = &vouching{done: make(chan struct{})}
	}
	q := v.next
	if len(q.nonces) == maxVouched*nonceSize {
		return nil, &BusyError{After: time.Second, Err: errors.New("too many ask at once")}
	}
	q.nonces = append(q.nonces, nonce...)
	if !v.working {
		v.working = true
		v.t.done.Go(v.work)
	}
	return q, nil
}

// work signs until nobody waits.
func (v *voucher) work() {
	for {
		v.mu.Lock()
		q := v.next
		v.next, v.working = nil, q != nil
		v.mu.Unlock()
		if q == nil {
			return
		}
		start := time.Now()
		q.answer, q.err = v.sign(q.nonces)
		close(q.done)
		rest := time.NewTimer(vouchRest * time.Since(start))
		select {
		case <-rest.C:
		case <-v.t.ctx.Done():
			rest.Stop()
		}
	}
}

func (v *voucher) sign(nonces []byte) ([]byte, error) {
	key, ok := v.t.certificate.Load().Leaf.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("its certificate is not over an Ed25519 key")
	}
	signature, err := v.t.cfg.Identity.Sign(rand.Reader, vouchDigest(v.t.cfg.Cluster, v.t.cfg.Self, key, nonces), crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	var b cryptobyte.Builder
	b.AddBytes(key)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(nonces) })
	b.AddBytes(signature)
	return b.Bytes()
}

// vouched returns the key that an answer to a nonce vouches for.
func vouched(cluster bft.ClusterID, id bft.ReplicaID, identity *ecdsa.PublicKey, nonce, answer []byte) (ed25519.PublicKey, error) {
	s := cryptobyte.String(answer)
	key := make(ed25519.PublicKey, ed25519.PublicKeySize)
	var nonces cryptobyte.String
	if !s.CopyBytes(key) || !s.ReadUint16LengthPrefixed(&nonces) || len(nonces)%nonceSize != 0 {
		return nil, errors.New("malformed answer")
	}
	asked := false
	for rest := nonces; len(rest) > 0; rest = rest[nonceSize:] {
		asked = asked || string(rest[:nonceSize]) == string(nonce)
	}
	if !asked || identity == nil || !ecdsa.VerifyASN1(identity, vouchDigest(cluster, id, key, nonces), s) {
		return nil, errNotVouched
	}
	return key, nil
}

// vouch asks the replica at the end of a connection for the key that it shows now.
func vouch(ctx context.Context, conn *grpc.ClientConn, cluster bft.ClusterID, to Peer) (ed25519.PublicKey, error) {
	nonce := make([]byte, nonceSize)
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	answer, err := call(ctx, conn, to.ID, methodVouch, nonce)
	if err != nil {
		return nil, err
	}
	key, err := vouched(cluster, to.ID, to.Identity, nonce, answer)
	if err != nil {
		return nil, fmt.Errorf("replica %d at %s: %w", to.ID, to.Address, err)
	}
	return key, nil
}

// shown is the key of the certificate under which a call was answered.
func shown(p *grpcpeer.Peer) ed25519.PublicKey {
	secured, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(secured.State.PeerCertificates) == 0 {
		return nil
	}
	key, _ := secured.State.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	return key
}

// CallVouched calls a method of the replica, as [Client.Call] does, and takes the answer only under
// a key for which the replica's identity key has vouched within the given time, in answer to this
// client; 0: for this call. So an answer is the replica's as it is now, and not of somebody who had
// the identity key once. It costs a signature of the replica's device, which replicas share among
// those who ask.
func (c *Client) CallVouched(ctx context.Context, within time.Duration, method string, request []byte) ([]byte, error) {
	conn := c.conn()
	var from grpcpeer.Peer
	answer, err := call(ctx, conn, c.to.ID, method, request, grpc.Peer(&from))
	if err != nil {
		return nil, err
	}
	key := shown(&from)
	if c.vouchedFor(key, within) {
		return answer, nil
	}
	now, err := vouch(ctx, conn, c.cluster, c.to)
	if err != nil {
		return nil, err
	}
	if !now.Equal(key) {
		c.renew(conn) // the replica has put on another key since it was connected, or this is not the replica
		return nil, fmt.Errorf("replica %d at %s: %w", c.to.ID, c.to.Address, errNotVouched)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.vouched, c.vouchedAt = key, time.Now()
	return answer, nil
}

func (c *Client) vouchedFor(key ed25519.PublicKey, within time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return key != nil && c.vouched.Equal(key) && time.Since(c.vouchedAt) < within
}

// CallVouched calls a method of a peer as a client, over a connection of its own, and returns the
// answer with the key that the peer shows, for which its identity key has vouched in answer to this
// call.
func (t *Transport) CallVouched(ctx context.Context, to bft.ReplicaID, method string, request []byte) ([]byte, ed25519.PublicKey, error) {
	p := t.peer(to)
	if p == nil {
		return nil, nil, Unreachable(fmt.Errorf("replica %d is not a peer", to))
	}
	c, err := Dial(t.cfg.Cluster, p.Peer)
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	answer, err := c.CallVouched(ctx, 0, method, request)
	return answer, c.vouched, err
}
