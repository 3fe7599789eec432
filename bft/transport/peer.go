package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/reseal-bft/reseal/bft"
)

// Reconnection: fast at first, for a replica that restarts, and then seldom enough not to matter.
const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = time.Second
)

// peer is the outgoing side of a connection.
type peer struct {
	Peer
	t         *Transport
	queue     *queue
	cancel    context.CancelFunc // ends run
	conn      atomic.Pointer[grpc.ClientConn]
	connected atomic.Bool
	again     chan struct{} // holds one signal when the connection is to be made anew
}

func (t *Transport) startPeer(to Peer) *peer {
	ctx, cancel := context.WithCancel(t.ctx)
	p := &peer{Peer: to, t: t, queue: newQueue(t.cfg.QueueBytes), cancel: cancel, again: make(chan struct{}, 1)}
	t.done.Go(func() { p.run(ctx) })
	return p
}

// redial ends the connection; another is made at once.
func (p *peer) redial() {
	select {
	case p.again <- struct{}{}:
	default:
	}
}

// run keeps a connection to the peer until ctx ends.
func (p *peer) run(ctx context.Context) {
	for ctx.Err() == nil {
		conn, err := dial(dialTLS(p.t.cfg.Cluster, p.Peer, p.t.certificate.Load), p.Address)
		if err != nil {
			p.t.cfg.Log.Error("cannot dial", "replica", p.ID, "address", p.Address, "error", err)
			return // the address is malformed: another one makes another peer
		}
		p.conn.Store(conn)
		p.serve(ctx, conn)
		_ = conn.Close()
	}
}

// errAnew ends a stream because the connection is to be made anew.
var errAnew = errors.New("the certificate has changed")

// serve keeps a stream on a connection until ctx ends or the connection is to be made anew.
func (p *peer) serve(ctx context.Context, conn *grpc.ClientConn) {
	for retry := firstRetry; ; retry = min(2*retry, lastRetry) {
		err := p.stream(ctx, conn)
		if p.connected.Swap(false) {
			p.t.cfg.Log.Info("disconnected", "replica", p.ID, "error", err)
			retry = firstRetry
		} else if ctx.Err() == nil {
			p.t.cfg.Log.Debug("cannot connect", "replica", p.ID, "address", p.Address, "error", err)
		}
		if errors.Is(err, errAnew) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-p.again:
			return
		case <-time.After(retry):
		}
	}
}

var frameStream = grpc.StreamDesc{StreamName: "frames", ClientStreams: true, ServerStreams: true}

const frameMethod = "/reseal/frames"

// stream opens the stream of frames and sends on it until it breaks.
func (p *peer) stream(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	opened, broken := make(chan grpc.ClientStream, 1), make(chan error, 1)
	p.t.done.Go(func() {
		stream, err := conn.NewStream(ctx, &frameStream, frameMethod, grpc.WaitForReady(true), grpc.ForceCodecV2(codec{}))
		if err == nil {
			_, err = stream.Header() // comes when the peer has accepted us
		}
		if err == nil {
			opened <- stream
			var nothing []byte
			err = stream.RecvMsg(&nothing) // the peer sends nothing: this ends with the stream
		}
		broken <- err
	})
	select {
	case stream := <-opened:
		p.connected.Store(true)
		p.t.cfg.Log.Info("connected", "replica", p.ID)
		if p.t.cfg.OnConnect != nil {
			p.t.cfg.OnConnect(p.ID)
		}
		return p.pump(stream, broken)
	case err := <-broken:
		return err
	case <-p.again:
		return errAnew
	}
}

// pump sends what is queued, as it comes. Broken ends it, also when ctx ends.
func (p *peer) pump(stream grpc.ClientStream, broken <-chan error) error {
	for {
		for batch := p.queue.take(batchBytes); len(batch) > 0; batch = p.queue.take(batchBytes) {
			if err := stream.SendMsg(batch); err != nil {
				return err
			}
		}
		select {
		case <-p.queue.wake:
		case err := <-broken:
			return err
		case <-p.again:
			return errAnew
		}
	}
}

func dial(config *tls.Config, address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstRetry, Multiplier: 2, Jitter: 0.2, MaxDelay: lastRetry},
			MinConnectTimeout: handshakeTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxGRPCMessage), grpc.MaxCallSendMsgSize(maxGRPCMessage)),
		grpc.WithStaticStreamWindowSize(windowBytes), grpc.WithStaticConnWindowSize(windowBytes),
		grpc.WithReadBufferSize(bufferBytes), grpc.WithWriteBufferSize(bufferBytes),
		grpc.WithIdleTimeout(0), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithNoProxy(),
	)
}

// unavailable is an error that says nothing about the request: the replica could not be reached, or the connection broke.
type unavailable struct{ error }

func (u unavailable) Unwrap() error { return u.error }

// Unavailable reports whether a call failed because the replica could not be reached; another replica may serve it.
func Unavailable(err error) bool { return errors.As(err, new(unavailable)) }

// Call calls a method of a peer. It fails at once when there is no connection. The request must not be changed meanwhile.
func (t *Transport) Call(ctx context.Context, to bft.ReplicaID, method string, request []byte) ([]byte, error) {
	p := t.peer(to)
	if p == nil {
		return nil, unavailable{fmt.Errorf("replica %d is not a peer", to)}
	}
	conn := p.conn.Load()
	if conn == nil {
		return nil, unavailable{fmt.Errorf("replica %d is not connected yet", to)}
	}
	return call(ctx, conn, to, method, request)
}

func call(ctx context.Context, conn *grpc.ClientConn, to bft.ReplicaID, method string, request []byte) ([]byte, error) {
	if len(request) > MaxFrame {
		return nil, fmt.Errorf("call %s: the request has %d bytes: the limit is %d", method, len(request), MaxFrame)
	}
	var answer []byte
	err := conn.Invoke(ctx, "/"+method, request, &answer, grpc.ForceCodecV2(codec{}))
	if err == nil {
		return answer, nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("call %s of replica %d: %w", method, to, ctx.Err())
	}
	s := status.Convert(err)
	err = fmt.Errorf("call %s of replica %d: %s", method, to, s.Message())
	if s.Code() == codes.Unavailable || s.Code() == codes.Canceled || s.Code() == codes.DeadlineExceeded {
		err = unavailable{err}
	}
	return nil, err
}
