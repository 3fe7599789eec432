package transport

import (
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	grpcpeer "google.golang.org/grpc/peer"

	"github.com/reseal-bft/reseal/bft"
)

// Limits of a client's connection: the size of a request, which is known at its first bytes; unread
// data of one call; calls in flight.
const (
	clientRequest = bft.MaxRequest + 1<<10
	clientWindow  = 256 << 10
	clientStreams = 128
)

// crowdedAway is how long a client stays away when too many calls are in flight.
const crowdedAway = 500 * time.Millisecond

var errCalls = errors.New("too many calls of clients are in flight")

// clientServer serves the calls of clients, on connections that the gate has let in.
type clientServer struct {
	t       *Transport
	server  *grpc.Server
	callers *callers
	arrived chan net.Conn
}

func (t *Transport) newClientServer() *clientServer {
	s := &clientServer{
		t: t, callers: newCallers("clients", t.cfg.MaxClients, 0, t.cfg.Memory.Clients, t.cfg.Log),
		arrived: make(chan net.Conn),
	}
	s.callers.most = t.cfg.MaxClientCalls
	s.server = newServer(admitted{}, s.serve, serving{clientRequest, clientWindow, clientBuffer, clientStreams})
	return s
}

func (s *clientServer) run() { _ = s.server.Serve(s) } // it fails when it is stopped

// admittedConn is a connection that is authenticated already.
type admittedConn struct {
	*caller
	info callerInfo
}

// acceptClient takes over a client's connection.
func (t *Transport) acceptClient(conn net.Conn, info credentials.TLSInfo) error {
	k, err := t.clients.callers.admit(conn, host(conn.RemoteAddr()))
	if err != nil {
		return err
	}
	select {
	case t.clients.arrived <- &admittedConn{caller: k, info: callerInfo{info, k}}:
		return nil
	case <-t.ctx.Done():
		_ = k.Close()
		return t.ctx.Err()
	}
}

// Accept, Close and Addr make it the listener of its own server: what the gate has let in arrives there.
func (s *clientServer) Accept() (net.Conn, error) {
	select {
	case conn := <-s.arrived:
		return conn, nil
	case <-s.t.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (s *clientServer) Close() error   { return nil }
func (s *clientServer) Addr() net.Addr { return s.t.listener.Addr() }

// admitted is the handshake of connections that have had theirs.
type admitted struct {
	credentials.TransportCredentials
}

func (admitted) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return conn, conn.(*admittedConn).info, nil
}

func (a admitted) Clone() credentials.TransportCredentials { return a }

func (admitted) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// serve serves the calls of clients.
func (s *clientServer) serve(_ any, stream grpc.ServerStream) error {
	p, ok := grpcpeer.FromContext(stream.Context())
	if !ok {
		return errNoMethod
	}
	k := p.AuthInfo.(callerInfo).conn
	name, _ := grpc.MethodFromServerStream(stream)
	s.t.mu.RLock()
	m, ok := s.t.methods[name]
	s.t.mu.RUnlock()
	if !ok || !m.clients {
		return s.t.noMethod()
	}
	ctx := seat{s.t.turns, k.address, k}.in(stream.Context())
	return k.exchange(stream, func(request []byte) ([]byte, error) { return m.serve(ctx, nil, request) })
}

// exchange receives a request, and sends the answer to it. A request that does not arrive in time,
// or an answer that is not taken in time, ends the connection. The call is in flight until then:
// gRPC keeps it, with its header, as long as its answer waits.
func (k *caller) exchange(stream grpc.ServerStream, serve func(request []byte) ([]byte, error)) error {
	if !k.opened() {
		return refusal(&BusyError{After: crowdedAway, Err: errCalls})
	}
	reply, err := k.serve(stream, serve)
	if err != nil {
		k.closed()
		return err
	}
	answer, settle := k.answer(reply)
	err = stream.SendMsg(answer)
	if err != nil || stream.Context().Err() != nil {
		settle() // the call was cancelled: gRPC may have dropped the answer without giving it back
	}
	return err
}

// serve receives a request and makes the answer.
func (k *caller) serve(stream grpc.ServerStream, serve func(request []byte) ([]byte, error)) ([]byte, error) {
	var request []byte
	inTime := k.overdue()
	err := stream.RecvMsg(&request)
	inTime()
	if err != nil {
		return nil, err
	}
	k.began(len(request))
	defer k.done(len(request))
	reply, err := serve(request)
	if err != nil {
		return nil, refusal(err)
	}
	return reply, nil
}

// heldReply is an answer that counts as held until it is sent. It is the pool that gRPC gives it
// back to.
type heldReply struct {
	data []byte
	sent func()
}

func (r *heldReply) Get(n int) *[]byte { b := make([]byte, n); return &b }
func (r *heldReply) Put(*[]byte)       { r.sent() }

// leastHeld is the capacity from which gRPC gives an answer back.
const leastHeld = 1<<10 + 1

// answer makes an answer count as held by its connection until it is sent, and its call as in flight.
func (k *caller) answer(data []byte) (answer *heldReply, settle func()) {
	if cap(data) < leastHeld {
		data = append(make([]byte, 0, leastHeld), data...)
	}
	k.answered(len(data))
	inTime := k.overdue()
	settle = sync.OnceFunc(func() {
		inTime()
		k.taken(len(data))
	})
	return &heldReply{data, settle}, settle
}
