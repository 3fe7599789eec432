package transport

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
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
	"github.com/reseal-bft/reseal/bft/merkle"
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
	// vouchRest is how long the device rests after a signature, in multiples of what that took: so
	// whoever asks keeps it busy for a third of the time at most.
	vouchRest = 2
)

var errNotVouched = errors.New("it does not prove to be the replica that it was, or is: who answers has a credential that the identity key signed at some time, and no more")

const vouchDomain = "reseal/v2/vouch\x00"

// vouchDigest is what the identity key signs: the key, for all who have sent a nonce, by the root of
// a map that has the nonces' hashes as keys, and nothing under them.
func vouchDigest(cluster bft.ClusterID, id bft.ReplicaID, key ed25519.PublicKey, nonces bft.Digest) []byte {
	b := append([]byte(vouchDomain), cluster[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(id))
	digest := sha256.Sum256(append(append(b, key...), nonces[:]...))
	return digest[:]
}

// voucher has the identity key sign, one signature at a time, for all who asked meanwhile: as many
// as have calls in flight, of which everybody's share is bounded, so nobody keeps another from being
// answered by the next signature but one. Safe for concurrent use.
type voucher struct {
	t *Transport

	mu      sync.Mutex
	next    *vouching // gathers nonces while the device works or rests
	working bool
}

// vouching is one signature, and those that it is for.
type vouching struct {
	asked     map[bft.Digest]struct{} // hashes of nonces; guarded by the voucher's mu until it is signed
	done      chan struct{}           // closed when the rest is set
	nonces    merkle.Map
	key       ed25519.PublicKey
	signature []byte
	err       error
}

// answer vouches to who is at the other end of a connection, and on no other: somebody between them,
// who has a key that the replica wears still, cannot hand a nonce on.
func (v *voucher) answer(ctx context.Context, from *Sender, nonce []byte) ([]byte, error) {
	p, ok := grpcpeer.FromContext(ctx)
	if !ok || len(nonce) != nonceSize {
		return nil, errors.New("malformed call")
	}
	bound, err := bind(p, nonce)
	if err != nil {
		return nil, err
	}
	return v.serve(ctx, from, bound)
}

// bind makes a nonce one of a connection, by what TLS exports of it (RFC 9266).
func bind(p *grpcpeer.Peer, nonce []byte) ([]byte, error) {
	var state tls.ConnectionState
	switch info := p.AuthInfo.(type) {
	case credentials.TLSInfo:
		state = info.State
	case callerInfo:
		state = info.State
	default:
		return nil, errors.New("no secure connection")
	}
	channel, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
	if err != nil {
		return nil, err
	}
	bound := sha256.Sum256(append(channel, nonce...))
	return bound[:], nil
}

func (v *voucher) serve(ctx context.Context, _ *Sender, nonce []byte) ([]byte, error) {
	if len(nonce) != nonceSize {
		return nil, errors.New("malformed call")
	}
	at := bft.Digest(sha256.Sum256(nonce))
	q := v.join(at)
	select {
	case <-q.done:
	case <-ctx.Done():
		v.leave(q, at)
		return nil, ctx.Err()
	}
	if q.err != nil {
		return nil, q.err
	}
	return q.answer(at)
}

// answer is what the one hears that has asked: key, proof and signature.
func (q *vouching) answer(at bft.Digest) ([]byte, error) {
	proof, err := q.nonces.Prove(at).MarshalBinary()
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddBytes(q.key)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(proof) })
	b.AddBytes(q.signature)
	return b.Bytes()
}

func (v *voucher) join(at bft.Digest) *vouching {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.next == nil {
		v.next = &vouching{asked: make(map[bft.Digest]struct{}), done: make(chan struct{})}
	}
	q := v.next
	q.asked[at] = struct{}{}
	if !v.working {
		v.working = true
		v.t.done.Go(v.work)
	}
	return q
}

// leave forgets who has given up: a device may take long.
func (v *voucher) leave(q *vouching, at bft.Digest) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if q == v.next {
		delete(q.asked, at)
	}
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
		q.err = v.sign(q)
		close(q.done)
		rest := time.NewTimer(vouchRest * time.Since(start))
		select {
		case <-rest.C:
		case <-v.t.ctx.Done():
			rest.Stop()
		}
	}
}

func (v *voucher) sign(q *vouching) (err error) {
	var ok bool
	if q.key, ok = v.t.certificate.Load().Leaf.PublicKey.(ed25519.PublicKey); !ok {
		return errors.New("its certificate is not over an Ed25519 key")
	}
	asked := make([]merkle.Change, 0, len(q.asked))
	for at := range q.asked {
		asked = append(asked, merkle.Change{Key: at, Value: []byte{}})
	}
	q.nonces, q.asked = merkle.Map{}.Update(asked), nil
	q.signature, err = v.t.cfg.Identity.Sign(rand.Reader, vouchDigest(v.t.cfg.Cluster, v.t.cfg.Self, q.key, q.nonces.Root()), crypto.SHA256)
	if err != nil {
		return fmt.Errorf("identity key: %w", err)
	}
	return nil
}

// vouched returns the key that an answer to a nonce vouches for.
func vouched(cluster bft.ClusterID, id bft.ReplicaID, identity *ecdsa.PublicKey, nonce, answer []byte) (ed25519.PublicKey, error) {
	s := cryptobyte.String(answer)
	key := make(ed25519.PublicKey, ed25519.PublicKeySize)
	var encoded cryptobyte.String
	if !s.CopyBytes(key) || !s.ReadUint16LengthPrefixed(&encoded) {
		return nil, errors.New("malformed answer")
	}
	proof, err := merkle.ParseProof(encoded)
	if err != nil {
		return nil, err
	}
	nonces, err := proof.Root(sha256.Sum256(nonce), nil, true)
	if err != nil || identity == nil || !ecdsa.VerifyASN1(identity, vouchDigest(cluster, id, key, nonces), s) {
		return nil, errNotVouched
	}
	return key, nil
}

// vouch asks the replica at the end of a connection, on which an answer has come, for the key that it
// shows now.
func vouch(ctx context.Context, conn *grpc.ClientConn, from *grpcpeer.Peer, cluster bft.ClusterID, to Peer) (ed25519.PublicKey, error) {
	nonce := make([]byte, nonceSize)
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	answer, err := call(ctx, conn, to.ID, methodVouch, nonce)
	if err != nil {
		return nil, err
	}
	bound, err := bind(from, nonce)
	if err != nil {
		return nil, err
	}
	key, err := vouched(cluster, to.ID, to.Identity, bound, answer)
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
// client and on this connection; 0: for this call. So an answer is the replica's as it is now, and
// not of somebody who had the identity key once. It costs a signature of the replica's device, which
// replicas share among those who ask.
func (c *Client) CallVouched(ctx context.Context, within time.Duration, method string, request []byte) ([]byte, error) {
	conn := c.conn()
	var from grpcpeer.Peer
	answer, err := call(ctx, conn, c.to.ID, method, request, grpc.Peer(&from))
	if err != nil {
		return nil, err
	}
	key := shown(&from)
	channel, err := bind(&from, nil)
	if err != nil {
		return nil, err
	}
	if c.vouchedFor(channel, within) {
		return answer, nil
	}
	now, err := vouch(ctx, conn, &from, c.cluster, c.to)
	if errors.Is(err, errNotVouched) {
		c.renew(conn) // it may be a new connection since the answer
	}
	if err != nil {
		return nil, err
	}
	if !now.Equal(key) {
		c.renew(conn) // the replica has put on another key since it was connected, or this is not the replica
		return nil, fmt.Errorf("replica %d at %s: %w", c.to.ID, c.to.Address, errNotVouched)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.vouched, c.vouchedOn, c.vouchedAt = key, channel, time.Now()
	return answer, nil
}

func (c *Client) vouchedFor(channel []byte, within time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Equal(c.vouchedOn, channel) && time.Since(c.vouchedAt) < within
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
