package transport

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
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
	// settled is how long a connection has to live for the next to be made as fast again.
	settled = 5 * time.Second
)

// peer is the outgoing side: a connection of frames, and another for calls.
type peer struct {
	Peer
	t         *Transport
	queue     *queue
	cancel    context.CancelFunc // ends run
	calls     atomic.Pointer[grpc.ClientConn]
	connected atomic.Bool  // frames flow
	at        atomic.Value // the address, a string, at which it was reached last
	// sender is who answered on the connection of frames, and callee on that of calls.
	sender, callee atomic.Pointer[Sender]
	again          chan struct{} // holds one signal when the connections are to be made anew
}

func (t *Transport) startPeer(to Peer) *peer {
	ctx, cancel := context.WithCancel(t.ctx)
	p := &peer{Peer: to, t: t, queue: newQueue(t.cfg.Memory.Queue), cancel: cancel, again: make(chan struct{}, 1)}
	t.done.Go(func() { p.run(ctx) })
	return p
}

// redial ends the connections; others are made at once.
func (p *peer) redial() {
	select {
	case p.again <- struct{}{}:
	default:
	}
}

// run keeps connections to the peer until ctx ends.
func (p *peer) run(ctx context.Context) {
	for ctx.Err() == nil {
		p.sender.Store(nil)
		p.callee.Store(nil)
		calls, err := dial(p.tls(&p.callee), p.Address)
		if err != nil {
			p.t.cfg.Log.Error("cannot dial", "replica", p.ID, "address", p.Address, "error", err)
			return // the address is malformed: another one makes another peer
		}
		p.calls.Store(calls)
		p.keepStream(ctx)
		_ = calls.Close()
	}
}

// tls is the configuration of a connection; who answers on it is put down.
func (p *peer) tls(who *atomic.Pointer[Sender]) *tls.Config {
	return dialTLS(p.t.cfg.Cluster, p.Peer, p.t.certificate.Load, func(s Sender) error {
		if p.t.cfg.Admit != nil {
			if err := p.t.cfg.Admit(s); err != nil {
				return err
			}
		}
		who.Store(&s)
		return nil
	})
}

// errAnew ends a connection because another one is to be made, and errOver because who answered on
// it counts no more.
var (
	errAnew = errors.New("the certificate has changed")
	errOver = errors.New("the credential that was shown counts no more")
)

// review is how long a connection outlives what it was admitted for: its epoch may be over, or the
// key replaced. A peer that is a little late puts on its new key meanwhile, and is not cut off.
const review = 5 * time.Second

// over says whether who answered, on either connection, counts no more.
func (p *peer) over() bool {
	for _, who := range []*Sender{p.sender.Load(), p.callee.Load()} {
		if who != nil && p.t.cfg.Admit != nil && p.t.cfg.Admit(*who) != nil {
			return true
		}
	}
	return false
}

// keepStream keeps a connection of frames until ctx ends or the connections are to be made anew.
func (p *peer) keepStream(ctx context.Context) {
	for retry := firstRetry; ; retry = min(2*retry, lastRetry) {
		began := time.Now()
		err := p.stream(ctx)
		if p.connected.Swap(false) {
			p.t.cfg.Log.Info("disconnected", "replica", p.ID, "error", err)
			if time.Since(began) >= settled {
				retry = firstRetry
			}
		} else if ctx.Err() == nil {
			p.t.cfg.Log.Debug("cannot connect", "replica", p.ID, "address", p.Address, "error", err)
		}
		if errors.Is(err, errAnew) || p.over() {
			return
		}
		if errors.Is(err, syscall.ECONNREFUSED) && p.t.cfg.OnLost != nil && !p.t.hears(p.ID) {
			p.t.cfg.OnLost(p.ID)
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

// stream connects and sends frames until the connection breaks.
func (p *peer) stream(ctx context.Context) error {
	wire, secure, err := p.connect(ctx)
	if err != nil {
		return err
	}
	broken := make(chan error, 1)
	p.t.done.Go(func() {
		_, err := io.Copy(io.Discard, secure) // the peer sends nothing more: this ends with the connection
		broken <- cmp.Or(err, io.EOF)
	})
	stop := context.AfterFunc(ctx, func() { _ = wire.Close() })
	defer func() {
		stop()
		_ = wire.Close()
	}()
	p.connected.Store(true)
	p.t.cfg.Log.Info("connected", "replica", p.ID)
	if p.t.cfg.OnConnect != nil {
		p.t.cfg.OnConnect(p.ID)
	}
	return p.pump(newFrameWriter(wire, secure), broken)
}

// connect makes a connection of frames, and waits until the peer has accepted it.
func (p *peer) connect(ctx context.Context) (*bufferedConn, *tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	raw, err := (&net.Dialer{KeepAliveConfig: keepAlive, Control: unanswered}).DialContext(ctx, "tcp", p.Address)
	if err != nil {
		return nil, nil, err
	}
	p.at.Store(host(raw.RemoteAddr()))
	wire := newBufferedConn(raw)
	stop := context.AfterFunc(ctx, func() { _ = wire.Close() })
	config := p.tls(&p.sender)
	config.NextProtos = []string{protocol}
	secure := tls.Client(wire, config)
	if err = secure.Handshake(); err == nil {
		var answer [1]byte
		_, err = io.ReadFull(secure, answer[:])
		if err == nil && answer[0] == twice {
			err = p.t.twins.told(p.t.cfg.Self, p.ID)
		}
	}
	if !stop() {
		err = cmp.Or(err, ctx.Err())
	}
	if err != nil {
		_ = wire.Close()
		return nil, nil, err
	}
	return wire, secure, nil
}

// pump sends what is queued, as it comes. Broken ends it, also when the peer is removed, and so does
// the end of what admitted the peer.
func (p *peer) pump(w *frameWriter, broken <-chan error) error {
	reviewed := time.NewTicker(p.t.review)
	defer reviewed.Stop()
	for {
		for batch := p.queue.take(batchBytes); len(batch) > 0; batch = p.queue.take(batchBytes) {
			if err := w.write(batch); err != nil {
				return err
			}
		}
		select {
		case <-p.queue.wake:
		case err := <-broken:
			return err
		case <-p.again:
			return errAnew
		case <-reviewed.C:
			if p.over() {
				return errOver
			}
		}
	}
}

// dial prepares a connection for calls.
func dial(config *tls.Config, address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstRetry, Multiplier: 2, Jitter: 0.2, MaxDelay: lastRetry},
			MinConnectTimeout: handshakeTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxCall), grpc.MaxCallSendMsgSize(MaxCall)),
		grpc.WithStaticStreamWindowSize(windowBytes), grpc.WithStaticConnWindowSize(windowBytes),
		grpc.WithReadBufferSize(bufferBytes), grpc.WithWriteBufferSize(bufferBytes),
		grpc.WithIdleTimeout(0), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithNoProxy(),
	)
}

// unavailable is an error that says nothing about the request: the replica could not be reached, or
// the connection broke.
type unavailable struct{ error }

func (u unavailable) Unwrap() error { return u.error }

// Unreachable marks the error of a call that did not reach its replica, for [Unavailable].
func Unreachable(err error) error { return unavailable{err} }

// Unavailable reports whether a call failed because the replica could not be reached; another
// replica may serve it.
func Unavailable(err error) bool { return errors.As(err, new(unavailable)) }

// Call calls a method of a peer. It fails at once when there is no connection. The request must not
// be changed meanwhile.
func (t *Transport) Call(ctx context.Context, to bft.ReplicaID, method string, request []byte) ([]byte, error) {
	p := t.peer(to)
	if p == nil {
		return nil, Unreachable(fmt.Errorf("replica %d is not a peer", to))
	}
	conn := p.calls.Load()
	if conn == nil {
		return nil, Unreachable(fmt.Errorf("replica %d is not connected yet", to))
	}
	return call(ctx, conn, to, method, request)
}

// CallUnder calls a method of a peer over a connection of its own, under another certificate than
// the transport's: for what the peer gives to the holder of that key only, while frames go on under
// the present one. Without a certificate (the zero value) it calls as a client, who asks of the
// replica that called nothing but its identity.
func (t *Transport) CallUnder(ctx context.Context, certificate tls.Certificate, to bft.ReplicaID, method string, request []byte) ([]byte, error) {
	p := t.peer(to)
	if p == nil {
		return nil, Unreachable(fmt.Errorf("replica %d is not a peer", to))
	}
	config := dialTLS(t.cfg.Cluster, p.Peer, nil, nil)
	if certificate.Certificate != nil {
		config = dialTLS(t.cfg.Cluster, p.Peer, func() *tls.Certificate { return &certificate }, t.cfg.Admit)
	}
	conn, err := dial(config, p.Address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return call(ctx, conn, to, method, request)
}

func call(ctx context.Context, conn *grpc.ClientConn, to bft.ReplicaID, method string, request []byte, options ...grpc.CallOption) ([]byte, error) {
	if len(request) > MaxCall {
		return nil, fmt.Errorf("call %s: the request has %d bytes: the limit is %d", method, len(request), MaxCall)
	}
	var answer []byte
	err := conn.Invoke(ctx, "/"+method, request, &answer, append(options, grpc.ForceCodecV2(codec{}))...)
	if err == nil {
		return answer, nil
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		// The replica knows the deadline too, and may end the call before ctx is done.
		return nil, fmt.Errorf("call %s of replica %d: %w", method, to, context.DeadlineExceeded)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("call %s of replica %d: %w", method, to, ctx.Err())
	}
	s := status.Convert(err)
	err = fmt.Errorf("call %s of replica %d: %s", method, to, s.Message())
	if b := busy(s, err); b != nil {
		return nil, b
	}
	if s.Code() == codes.FailedPrecondition {
		return nil, &GoneError{err}
	}
	if s.Code() == codes.Unavailable || s.Code() == codes.Canceled || s.Code() == codes.DeadlineExceeded {
		err = Unreachable(err)
	}
	return nil, err
}
