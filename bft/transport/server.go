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
	"google.golang.org/grpc/metadata"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/reseal-bft/reseal/bft"
)

func (t *Transport) newServer() *grpc.Server {
	secure := credentials.NewTLS(listenTLS(t.certificate.Load, func(leaf *x509.Certificate) error {
		_, err := t.identify(leaf)
		return err
	}))
	return grpc.NewServer(
		grpc.Creds(&gate{TransportCredentials: secure, clients: make(chan struct{}, t.cfg.MaxClients)}),
		grpc.ForceServerCodecV2(codec{}),
		grpc.UnknownServiceHandler(t.serve),
		grpc.MaxRecvMsgSize(maxGRPCMessage), grpc.MaxSendMsgSize(maxGRPCMessage),
		grpc.MaxConcurrentStreams(streamsPerConn),
		grpc.StaticStreamWindowSize(windowBytes), grpc.StaticConnWindowSize(windowBytes),
		grpc.ReadBufferSize(bufferBytes), grpc.WriteBufferSize(bufferBytes),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
	)
}

// gate bounds the connections of clients, so that those of replicas always find room.
type gate struct {
	credentials.TransportCredentials
	clients chan struct{} // one element for each connection
}

func (g *gate) Clone() credentials.TransportCredentials {
	return &gate{TransportCredentials: g.TransportCredentials.Clone(), clients: g.clients}
}

// ServerHandshake authenticates whoever connects, and turns a client away when there are too many.
func (g *gate) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := g.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	if secured, ok := info.(credentials.TLSInfo); ok && len(secured.State.PeerCertificates) > 0 {
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
	id, err := claimedID(t.cfg.Cluster, leaf)
	if err != nil {
		return Sender{}, fmt.Errorf("a connection was refused: %w", err)
	}
	p := t.peer(id)
	if p == nil {
		return Sender{}, fmt.Errorf("a connection was refused: replica %d is not a member", id)
	}
	sender, err := checkLeaf(t.cfg.Cluster, id, p.Identity, leaf, time.Now())
	if err != nil {
		return Sender{}, fmt.Errorf("a connection that claims to be replica %d was refused: %w", id, err)
	}
	return sender, nil
}

// caller tells who has opened a stream: a peer, or a client (nil). A peer is checked again, since it may have been removed meanwhile.
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

// serve serves every stream and call.
func (t *Transport) serve(_ any, stream grpc.ServerStream) error {
	from, err := t.caller(stream.Context())
	if err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	name, _ := grpc.MethodFromServerStream(stream)
	if name == frameMethod {
		if from == nil {
			return status.Error(codes.PermissionDenied, "only replicas send frames")
		}
		return t.receive(*from, stream)
	}
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

// incoming is a peer's stream of frames.
type incoming struct {
	cancel context.CancelFunc
	ended  chan struct{} // closed when the handler has returned for the last time
}

// receive hands the frames of a peer to the handler until the stream ends, the peer opens another one, or it is removed.
func (t *Transport) receive(from Sender, stream grpc.ServerStream) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	in := &incoming{cancel: cancel, ended: make(chan struct{})}
	t.replaceIncoming(from.ID, in)
	defer t.forget(from.ID, in)
	result := make(chan error, 1)
	t.done.Go(func() {
		defer close(in.ended)
		err := stream.SendHeader(metadata.MD{}) // tells the peer that it is accepted
		if err == nil {
			err = t.receiveFrames(ctx, from, stream)
		}
		result <- err
	})
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return status.Error(codes.Aborted, "the stream was replaced, or the replica removed") // it ends the goroutine as well
	}
}

// replaceIncoming makes in the peer's stream, and waits for the end of the one before it: frames are handled in order.
func (t *Transport) replaceIncoming(id bft.ReplicaID, in *incoming) {
	t.mu.Lock()
	old := t.incoming[id]
	t.incoming[id] = in
	t.mu.Unlock()
	if old != nil {
		old.cancel()
		<-old.ended
	}
}

func (t *Transport) receiveFrames(ctx context.Context, from Sender, stream grpc.ServerStream) error {
	for {
		var message []byte
		if err := stream.RecvMsg(&message); err != nil {
			return err
		}
		wellFormed := eachFrame(message, func(frame []byte) {
			if ctx.Err() == nil {
				t.cfg.Handler(from, frame)
			}
		})
		if !wellFormed {
			return status.Error(codes.InvalidArgument, "malformed frames")
		}
	}
}

func (t *Transport) forget(id bft.ReplicaID, in *incoming) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.incoming[id] == in {
		delete(t.incoming, id)
	}
}
