package transport

import (
	"container/list"
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
	return newServer(&gate{TransportCredentials: secure, t: t, handshakes: new(handshakes)}, t.serve, MaxFrame, windowBytes, streamsPerConn)
}

func newServer(secure credentials.TransportCredentials, serve grpc.StreamHandler, request, window int, streams uint32) *grpc.Server {
	return grpc.NewServer(
		grpc.Creds(secure),
		grpc.ForceServerCodecV2(codec{}),
		grpc.UnknownServiceHandler(serve),
		grpc.MaxRecvMsgSize(request), grpc.MaxSendMsgSize(MaxFrame),
		grpc.MaxConcurrentStreams(streams),
		grpc.MaxHeaderListSize(headerBytes), // decoded: an indexed field is one byte on the wire
		grpc.StaticStreamWindowSize(int32(window)), grpc.StaticConnWindowSize(windowBytes),
		grpc.ReadBufferSize(bufferBytes), grpc.WriteBufferSize(bufferBytes),
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
	defer g.handshakes.enter(raw)()
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
	if err := g.t.acceptClient(conn, secured); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return nil, nil, credentials.ErrConnDispatched
}

// maxHandshakes bounds the connections that have not authenticated yet: far more than a cluster's
// own at any time. One more ends the oldest, which has had the most time of all.
const maxHandshakes = 256

// handshakes are the connections that have not authenticated yet, oldest first. Safe for concurrent use.
type handshakes struct {
	mu    sync.Mutex
	conns list.List // of net.Conn
}

// enter adds a connection until leave is called.
func (h *handshakes) enter(conn net.Conn) (leave func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conns.Len() >= maxHandshakes {
		oldest := h.conns.Remove(h.conns.Front()).(net.Conn)
		_ = oldest.Close()
	}
	e := h.conns.PushBack(conn)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.conns.Remove(e)
	}
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

// sender tells which peer makes a call. It is checked again, since it may have been removed meanwhile.
func (t *Transport) sender(ctx context.Context) (*Sender, error) {
	p, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return nil, errors.New("no connection")
	}
	secured, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil, errors.New("no secure connection")
	}
	if len(secured.State.PeerCertificates) == 0 {
		return nil, errors.New("no replica's connection")
	}
	sender, err := t.identify(secured.State.PeerCertificates[0])
	return &sender, err
}

// serve serves the calls of peers.
func (t *Transport) serve(_ any, stream grpc.ServerStream) error {
	from, err := t.sender(stream.Context())
	if err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	name, _ := grpc.MethodFromServerStream(stream)
	t.mu.RLock()
	m, ok := t.methods[name]
	t.mu.RUnlock()
	if !ok {
		return errNoMethod
	}
	var request []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	reply, err := m.serve(stream.Context(), from, request)
	if err != nil {
		return refusal(err)
	}
	return stream.SendMsg(reply)
}

var errNoMethod = status.Error(codes.Unimplemented, "there is no such method for this caller")
