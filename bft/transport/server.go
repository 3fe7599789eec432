package transport

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
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
	return grpc.NewServer(
		grpc.Creds(&gate{TransportCredentials: secure, t: t, clients: make(chan struct{}, t.cfg.MaxClients)}),
		grpc.ForceServerCodecV2(codec{}),
		grpc.UnknownServiceHandler(t.serve),
		grpc.MaxRecvMsgSize(MaxFrame), grpc.MaxSendMsgSize(MaxFrame),
		grpc.MaxConcurrentStreams(streamsPerConn),
		grpc.StaticStreamWindowSize(windowBytes), grpc.StaticConnWindowSize(windowBytes),
		grpc.ReadBufferSize(bufferBytes), grpc.WriteBufferSize(bufferBytes),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
	)
}

// gate sorts what connects: frames of peers leave gRPC here; the connections of clients are bounded, so that those of replicas
// always find room.
type gate struct {
	credentials.TransportCredentials
	t       *Transport
	clients chan struct{} // one element for each connection
}

func (g *gate) Clone() credentials.TransportCredentials {
	return &gate{TransportCredentials: g.TransportCredentials.Clone(), t: g.t, clients: g.clients}
}

// ServerHandshake authenticates whoever connects.
func (g *gate) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	wire := newBufferedConn(raw)
	conn, info, err := g.TransportCredentials.ServerHandshake(wire)
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
			return nil, nil, errors.Join(err, conn.Close())
		}
		return nil, nil, credentials.ErrConnDispatched
	case len(secured.State.PeerCertificates) > 0:
		return conn, info, nil
	}
	select {
	case g.clients <- struct{}{}:
		return &clientConn{Conn: conn, release: sync.OnceFunc(func() { <-g.clients })}, info, nil
	default:
		return nil, nil, errors.Join(errors.New("too many clients are connected"), conn.Close())
	}
}

// clientConn gives its place back when it is closed.
type clientConn struct {
	net.Conn
	release func()
}

func (c *clientConn) Close() error {
	c.release()
	return c.Conn.Close()
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

// caller tells who makes a call: a peer, or a client (nil). A peer is checked again, since it may have been removed meanwhile.
func (t *Transport) caller(ctx context.Context) (*Sender, error) {
	p, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return nil, errors.New("no connection")
	}
	secured, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil, errors.New("no secure connection")
	}
	if len(secured.State.PeerCertificates) == 0 {
		return nil, nil
	}
	sender, err := t.identify(secured.State.PeerCertificates[0])
	return &sender, err
}

// serve serves every call.
func (t *Transport) serve(_ any, stream grpc.ServerStream) error {
	from, err := t.caller(stream.Context())
	if err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	name, _ := grpc.MethodFromServerStream(stream)
	t.mu.RLock()
	m, ok := t.methods[name]
	t.mu.RUnlock()
	switch {
	case !ok || from == nil && !m.clients:
		return status.Error(codes.Unimplemented, "there is no such method for this caller")
	case from == nil:
		select {
		case t.clientCalls <- struct{}{}:
			defer func() { <-t.clientCalls }()
		default:
			return status.Error(codes.Unavailable, "too many calls of clients are in flight: try another replica")
		}
	}
	return answer(stream, from, m.serve)
}

// answer serves one call.
func answer(stream grpc.ServerStream, from *Sender, serve Method) error {
	var request []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	reply, err := serve(stream.Context(), from, request)
	if err != nil {
		return status.Error(codes.Unknown, err.Error())
	}
	return stream.SendMsg(reply)
}
