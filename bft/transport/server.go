package transport

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

func (t *Transport) newServer() *grpc.Server {
	secure := credentials.NewTLS(listenTLS(t.certificate.Load, func(leaf *x509.Certificate) error {
		_, err := t.identify(leaf)
		return err
	}))
	return newServer(&gate{TransportCredentials: secure, t: t, handshakes: &handshakes{isPeers: t.isPeers}}, t.serve, serving{MaxCall, windowBytes, bufferBytes, streamsPerConn})
}

// isPeers says whether a peer was reached at an address.
func (t *Transport) isPeers(address string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, p := range t.peers {
		if p.at.Load() == address {
			return true
		}
	}
	return false
}

// serving are the bounds of a server: of a request, of unread data of one call, and of the buffers
// of a connection, in bytes; of calls in flight on a connection.
type serving struct {
	request, window, buffer int
	streams                 uint32
}

func newServer(secure credentials.TransportCredentials, serve grpc.StreamHandler, bounds serving) *grpc.Server {
	return grpc.NewServer(
		grpc.Creds(secure),
		grpc.ForceServerCodecV2(codec{}),
		grpc.UnknownServiceHandler(serve),
		grpc.MaxRecvMsgSize(bounds.request), grpc.MaxSendMsgSize(MaxCall),
		grpc.MaxConcurrentStreams(bounds.streams),
		grpc.MaxHeaderListSize(headerBytes), // decoded: an indexed field is one byte on the wire
		grpc.StaticStreamWindowSize(int32(bounds.window)), grpc.StaticConnWindowSize(windowBytes),
		grpc.ReadBufferSize(bounds.buffer), grpc.WriteBufferSize(bounds.buffer),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
	)
}

// gate sorts what connects: frames of peers leave gRPC here, clients go to a server of their own,
// and what remains are the calls of peers.
type gate struct {
	credentials.TransportCredentials
	t          *Transport
	handshakes *handshakes
}

func (g *gate) Clone() credentials.TransportCredentials {
	return &gate{TransportCredentials: g.TransportCredentials.Clone(), t: g.t, handshakes: g.handshakes}
}

// ServerHandshake authenticates whoever connects.
func (g *gate) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	h, leave := g.handshakes.enter(raw, g.t.turns)
	defer leave()
	wire := newBufferedConn(h)
	conn, info, err := g.TransportCredentials.ServerHandshake(wire)
	h.finish()
	if err != nil {
		return nil, nil, err
	}
	secured, ok := info.(credentials.TLSInfo)
	if !ok {
		return nil, nil, errors.Join(errors.New("no secure connection"), conn.Close())
	}
	switch {
	case secured.State.NegotiatedProtocol == protocol:
		wire.widen()
		if err := g.t.acceptFrames(conn, secured.State); err != nil {
			if errors.Is(err, errTwin) {
				_, _ = conn.Write([]byte{twice}) // one that does not hear it hears it next time
			}
			return nil, nil, errors.Join(err, conn.Close())
		}
		return nil, nil, credentials.ErrConnDispatched
	case len(secured.State.PeerCertificates) > 0:
		return g.t.acceptCalls(conn, secured)
	}
	if err := g.t.acceptClient(conn, secured); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return nil, nil, credentials.ErrConnDispatched
}

// peerConnections bounds the connections on which one peer calls: one, and a few for calls under
// another certificate. One more ends the one that has been idle for longest.
const peerConnections = 16

// acceptCalls takes a connection on which a peer calls. What its calls hold counts as the peer's.
func (t *Transport) acceptCalls(conn net.Conn, info credentials.TLSInfo) (net.Conn, credentials.AuthInfo, error) {
	from, err := t.identify(info.State.PeerCertificates[0])
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	k, err := t.calls.admit(conn, fmt.Sprintf("replica %d", from.ID))
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return k, callerInfo{info, k}, nil
}

// identify tells which peer a leaf belongs to.
func (t *Transport) identify(leaf *x509.Certificate) (Sender, error) {
	id, _, err := claimed(t.cfg.Cluster, leaf)
	if err != nil {
		return Sender{}, fmt.Errorf("a connection was refused: %w", err)
	}
	p := t.peer(id)
	if p == nil {
		return Sender{}, fmt.Errorf("a connection was refused: replica %d is not a member", id)
	}
	sender, err := CheckCredential(t.cfg.Cluster, id, p.Identity, leaf, time.Now())
	if err == nil && t.cfg.Admit != nil {
		err = t.cfg.Admit(sender)
	}
	if err != nil {
		return Sender{}, fmt.Errorf("a connection that claims to be replica %d was refused: %w", id, err)
	}
	return sender, nil
}

// sender tells which peer makes a call, and on which connection. It is checked again, since it may
// have been removed meanwhile.
func (t *Transport) sender(ctx context.Context) (*Sender, *caller, error) {
	p, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return nil, nil, errors.New("no connection")
	}
	info, ok := p.AuthInfo.(callerInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return nil, nil, errors.New("no replica's connection")
	}
	sender, err := t.identify(info.State.PeerCertificates[0])
	return &sender, info.conn, err
}

// serve serves the calls of peers.
func (t *Transport) serve(_ any, stream grpc.ServerStream) error {
	from, k, err := t.sender(stream.Context())
	if err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	name, _ := grpc.MethodFromServerStream(stream)
	t.mu.RLock()
	m, ok := t.methods[name]
	t.mu.RUnlock()
	if !ok {
		return t.noMethod()
	}
	ctx := seat{t.turns, k.address, k}.in(stream.Context())
	return k.exchange(stream, func(request []byte) ([]byte, error) { return m.serve(ctx, from, request) })
}

var (
	errNoMethod = status.Error(codes.Unimplemented, "there is no such method for this caller")
	errStarting = errors.New("the replica is starting: it restores its state or executes its log again, and its log says how far it has come")
)

// startingAway is when to come back to a replica that is starting.
const startingAway = time.Second

// noMethod is the answer to who calls what is not known here.
func (t *Transport) noMethod() error {
	if t.cfg.Starting != nil && t.cfg.Starting() {
		return refusal(&BusyError{After: startingAway, Err: errStarting})
	}
	return errNoMethod
}
