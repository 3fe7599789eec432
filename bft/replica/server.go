package replica

import (
	"context"
	"errors"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/transport"
)

// MethodSubmit is for clients that write; those that read have methods of their own.
const MethodSubmit = "reseal/submit" // a request; the answer is a request.Reply

// handOnAfter is how long a request that a client gave to this replica may wait before it is handed to the leader again.
const handOnAfter = 250 * time.Millisecond

func (r *Replica) serve() {
	r.cfg.Network.Handle(methodAncestors, r.serveAncestors)
	r.cfg.Network.Handle(methodLog, r.serveLog)
	r.cfg.Network.Handle(methodHead, r.serveHead)
	r.cfg.Network.Handle(methodSnapshot, r.serveSnapshot)
	r.cfg.Network.Handle(methodRecall, r.serveRecall)
	r.cfg.Network.HandleClient(MethodSubmit, r.serveSubmit)
	r.cfg.Network.HandleClient(MethodHeight, r.serveHeight)
	r.cfg.Network.HandleClient(MethodRead, r.serveRead)
}

// serveSubmit orders a client's request and answers with its proven results. It waits as long as the client does.
func (r *Replica) serveSubmit(ctx context.Context, _ *transport.Sender, raw []byte) ([]byte, error) {
	req, err := request.Parse(raw)
	if err != nil {
		return nil, err
	}
	reply, err := r.Submit(ctx, req)
	if err != nil {
		return nil, err
	}
	return reply.MarshalBinary()
}

// ErrStale says that a request's session has moved on, and its outcome is no longer held.
var ErrStale = errors.New("the request was executed, or passed over, some time ago: its outcome is no longer held")

// Submit orders a request and returns its proven results. It waits until they are certified or the context ends.
func (r *Replica) Submit(ctx context.Context, req *request.Request) (*request.Reply, error) {
	if err := req.Verify(r.cfg.Cluster); err != nil {
		return nil, err
	}
	key := keyOf(req)
	ch := r.ledger.await(key)
	defer r.ledger.forget(key, ch)
	if r.ledger.stale(req) {
		return nil, ErrStale
	}
	if news, err := r.admitVerified(req); err != nil {
		return nil, err
	} else if news {
		r.handOn(req)
	}
	select {
	case reply := <-ch:
		if reply == nil {
			return nil, ErrStale
		}
		return reply, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Enqueue orders a request of this process's own, without waiting for it.
func (r *Replica) Enqueue(req *request.Request) error {
	if err := req.Verify(r.cfg.Cluster); err != nil {
		return err
	}
	if _, err := r.admitVerified(req); err != nil {
		return err
	}
	r.handOn(req)
	return nil
}

func (r *Replica) admitVerified(req *request.Request) (bool, error) {
	if req.Sequence <= lastSequence(r.ledger.latest.Load().sessions, req) {
		return false, nil
	}
	return true, r.pool.add(req, true, time.Now())
}

// handOn sends a request to the leader of the current view.
func (r *Replica) handOn(req *request.Request) {
	run := r.run.Load()
	if run == nil {
		return // the next epoch's leader gets it when it is overdue
	}
	leader := run.config.LeaderOf(max(1, bft.View(run.view.Load())))
	if leader != r.cfg.Self {
		r.cfg.Network.Send(leader, append([]byte{frameRequest}, req.Raw()...))
	}
}

// handOnOverdue hands requests on again that were not ordered in time: their leader may be down, or may censor them.
func (r *Replica) handOnOverdue(ctx context.Context) error {
	ticker := time.NewTicker(handOnAfter)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case t := <-ticker.C:
			for _, req := range r.pool.overdue(t.Add(-handOnAfter), 256) {
				r.handOn(req)
			}
		}
	}
}
