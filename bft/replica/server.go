package replica

import (
	"cmp"
	"context"

	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/transport"
)

// MethodSubmit is for clients that write; those that read have methods of their own.
const MethodSubmit = "reseal/submit" // a request; the answer is a request.Reply

func (r *Replica) serve() {
	r.cfg.Network.Handle(methodAncestors, r.serveAncestors)
	r.cfg.Network.Handle(methodLog, r.serveLog)
	r.cfg.Network.Handle(methodHead, r.serveHead)
	r.cfg.Network.Handle(methodSnapshot, r.serveSnapshot)
	r.cfg.Network.Handle(methodRecall, r.serveRecall)
	r.cfg.Network.Handle(methodClock, r.serveClock)
	r.cfg.Network.Handle(methodHandOn, r.serveHandOn)
	r.cfg.Network.HandleClient(MethodSubmit, r.serveSubmit)
	r.cfg.Network.HandleClient(MethodHeight, r.serveHeight)
	r.cfg.Network.HandleClient(MethodRead, r.serveRead)
}

// serveSubmit orders a client's request and answers with its proven results. It waits as long as
// the client does.
func (r *Replica) serveSubmit(ctx context.Context, _ *transport.Sender, raw []byte) ([]byte, error) {
	req, err := r.receive(ctx, func() (*request.Request, error) { return request.Parse(raw) })
	if err != nil {
		return nil, err
	}
	reply, err := r.outcome(ctx, req)
	if err != nil {
		return nil, err
	}
	leave, err := transport.Turn(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return reply.MarshalBinary()
}

// Submit orders a request and returns its proven results. It waits until they are certified or the
// context ends. It returns a [transport.BusyError] when too much waits to be ordered, and a
// [transport.GoneError] when the outcome is not held here and will not be: [ErrStale], [ErrEnded].
func (r *Replica) Submit(ctx context.Context, req *request.Request) (*request.Reply, error) {
	if _, err := r.receive(ctx, func() (*request.Request, error) { return req, nil }); err != nil {
		return nil, err
	}
	return r.outcome(ctx, req)
}

// outcome waits for what becomes of a request that was received.
func (r *Replica) outcome(ctx context.Context, req *request.Request) (*request.Reply, error) {
	key := keyOf(req)
	ch := r.ledger.await(key)
	defer r.ledger.forget(key, ch)
	if held, why := r.ledger.passed(req); why != nil && !held {
		return nil, &transport.GoneError{Err: why}
	}
	select {
	case reply := <-ch:
		if reply == nil {
			return nil, &transport.GoneError{Err: ErrStale}
		}
		return reply, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// receive admits a request, when it is its client's turn, and makes sure that it is the client's.
// Parsing it is part of the turn: who is refused and comes back at once pays for each time.
func (r *Replica) receive(ctx context.Context, parse func() (*request.Request, error)) (*request.Request, error) {
	leave, err := transport.Turn(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	req, err := parse()
	if err != nil {
		return nil, err
	}
	if err := r.admit(req, origin{address: cmp.Or(transport.Source(ctx), "unknown")}); err != nil {
		return nil, err
	}
	if !r.pool.has(req.Digest()) { // it was passed over or executed; the outcome is for its client alone
		return req, req.Verify(r.cfg.Cluster)
	}
	return req, nil
}

// Enqueue orders a request of this process's own, without waiting for it.
func (r *Replica) Enqueue(req *request.Request) error { return r.admit(req, origin{}) }
