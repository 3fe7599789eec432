package replica

import (
	"crypto/ed25519"
	"fmt"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/transport"
)

// Receive is the gateway for what peers send: the handler of the transport. Everything is validated
// here, on the goroutine of the peer's connection; what passes, the core may rely on. It blocks
// while the core has much to do.
func (r *Replica) Receive(from transport.Sender, frame []byte) {
	member := r.Membership().Member(from.ID)
	if member == nil || !member.Accepts(from.EpochKey) || len(frame) == 0 {
		return // not a member of this epoch, or not under the key that the log has for it
	}
	if err := r.receiveMessage(from, frame); err != nil {
		r.complaints.about(from.ID, "refused what a peer sent", err)
	}
}

// Lost tells the core that a peer has ended, so that it is not waited for as a leader: what the
// transport says of it.
func (r *Replica) Lost(id bft.ReplicaID) {
	if run := r.run.Load(); run != nil {
		run.events.put(bft.Lost{Replica: id})
	}
}

// admit verifies a request and puts it into the pool. One that will not be executed any more it
// lets be: see ledger.passed.
func (r *Replica) admit(req *request.Request, o origin) error {
	if _, why := r.ledger.passed(req); why != nil {
		return nil
	}
	if bound, height := request.Bound(req.Sequence), r.ledger.latest.Load().height; bound > height+request.SessionBlocks {
		return fmt.Errorf("the request is bound to height %d, and this replica is at %d: number requests by request.NextSequence", bound, height)
	}
	if err := r.pool.admits(req, o); err != nil { // what is refused need not be verified
		return err
	}
	if !r.pool.has(req.Digest()) {
		if err := req.Verify(r.cfg.Cluster); err != nil {
			return err
		}
	}
	return r.pool.add(req, o, time.Now())
}

func (r *Replica) receiveMessage(sender transport.Sender, frame []byte) error {
	message, err := bft.ParseMessage(frame)
	if err != nil {
		return err
	}
	run := r.run.Load()
	from, epoch := sender.ID, bft.EpochOf(message)
	// Of an epoch that has not begun nothing is remembered: who holds the replica now would silence
	// the one that has recovered by then.
	if vote, ok := message.(bft.Vote); ok && epoch <= r.Membership().Epoch {
		r.recall.note(from, vote)
	}
	switch {
	case run == nil || epoch > run.config.Epoch:
		if epoch <= r.Membership().Epoch+1 {
			r.early.keep(sender, epoch, message)
		}
		if run != nil {
			r.fallenBehind(from)
		}
		return nil
	case epoch < run.config.Epoch:
		if _, asks := message.(bft.Status); asks { // it will see from the epoch that it has fallen behind
			r.cfg.Network.Send(from, bft.MarshalMessage(bft.Status{Epoch: run.config.Epoch, View: bft.View(run.view.Load())}))
		}
		return nil
	}
	if run.ignores(message) {
		return nil
	}
	if err := run.examine(sender, message); err != nil {
		return err
	}
	if status, ok := message.(bft.Status); ok && status.FinalHeight > bft.Height(run.final.Load())+littleBehind {
		r.fallenBehind(from)
	}
	run.meter.await(from, message)
	run.events.put(bft.Receive{From: from, Message: message})
	return nil
}

// early holds the messages of peers that have begun the next epoch a moment sooner than this
// replica. Without it they would be lost, and said again only after a timeout. Each peer has a
// budget in bytes; if it speaks under several keys, what the one said that takes most goes first, so
// that who has had a key of its cannot silence it.
type early struct {
	limit int // of each peer

	mu    sync.Mutex
	peers map[earlySender]*earlyPeer
}

// earlySender is a peer under a key: if the epoch's key for it turns out to be another one,
// somebody else said it.
type earlySender struct {
	id  bft.ReplicaID
	key string
}

type earlyPeer struct {
	epoch    bft.Epoch // of the messages held: the latest that the peer has spoken in
	messages []bft.Message
	bytes    int
}

// keep holds a message of a later epoch; of each peer only the latest epoch's are held, so that what
// one of them says of epochs to come makes nobody else unheard.
func (q *early) keep(sender transport.Sender, epoch bft.Epoch, m bft.Message) {
	from := earlySender{sender.ID, string(sender.EpochKey)}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.peers == nil {
		q.peers = make(map[earlySender]*earlyPeer)
	}
	p := q.peers[from]
	if p != nil && epoch < p.epoch {
		return
	}
	if p == nil || epoch > p.epoch {
		p = &earlyPeer{epoch: epoch}
		q.peers[from] = p
	}
	p.messages, p.bytes = append(p.messages, m), p.bytes+messageSize(m)
	q.bound(sender.ID)
}

// bound lets go of the last of what a peer has said, under the key that has most, while it is too much.
func (q *early) bound(id bft.ReplicaID) {
	for {
		all, most := 0, earlySender{}
		for from, p := range q.peers {
			if from.id != id {
				continue
			}
			if all += p.bytes; most.id == 0 || p.bytes > q.peers[most].bytes {
				most = from
			}
		}
		if all <= q.limit {
			return
		}
		p := q.peers[most]
		last := len(p.messages) - 1
		p.bytes -= messageSize(p.messages[last])
		p.messages[last] = nil
		if p.messages = p.messages[:last]; last == 0 {
			delete(q.peers, most)
		}
	}
}

// take returns the messages held of an epoch, by sender, and forgets them and those of earlier ones.
func (q *early) take(epoch bft.Epoch) map[earlySender]*earlyPeer {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := make(map[earlySender]*earlyPeer)
	for from, p := range q.peers {
		if p.epoch > epoch {
			continue
		}
		delete(q.peers, from)
		if p.epoch == epoch {
			taken[from] = p
		}
	}
	return taken
}

// hearEarly hands the core what peers said in this epoch before it began here.
func (e *epochRun) hearEarly() {
	for from, peer := range e.r.early.take(e.config.Epoch) {
		if member := e.membership.Member(from.id); member == nil || !member.Accepts(ed25519.PublicKey(from.key)) {
			continue
		}
		sender := transport.Sender{ID: from.id, EpochKey: ed25519.PublicKey(from.key)}
		for _, m := range peer.messages {
			if e.ignores(m) || e.examine(sender, m) != nil {
				continue
			}
			if vote, ok := m.(bft.Vote); ok {
				e.r.recall.note(from.id, vote)
			}
			e.meter.count(from.id, m)
			e.events.put(bft.Receive{From: from.id, Message: m})
		}
	}
}

// ignores reports whether a message is a leader's word on a view that is over, or on one so far ahead
// that it does not count yet: the core drops it. Who is late, or has gone on, does no wrong, but such
// signatures are not worth a look: a leader could have any number of them verified, by blocks that
// are no evidence.
func (e *epochRun) ignores(m bft.Message) bool {
	final, view := bft.View(e.finalView.Load()), max(1, bft.View(e.view.Load()))
	if broken("words-of-any-view") {
		return false
	}
	switch x := m.(type) {
	case *bft.Block:
		return x.View <= final || x.View > view+wordsAhead
	case bft.SignedHeader:
		return x.View <= final || x.View > view+wordsAhead
	case bft.Evidence:
		return x.A.View > view+bft.VotesAhead
	}
	return false
}

// wordsAhead is how many views ahead of this replica's a leader's word is looked at: more than the
// core keeps, as what waits before it may bring the core to later views.
const wordsAhead = 2 * bft.BlocksAhead

// validate checks what the core relies on and cannot check itself. What a peer sends unasked is
// examined instead.
func (e *epochRun) validate(m bft.Message) error {
	if err := e.config.Check(m); err != nil {
		return err
	}
	switch x := m.(type) {
	case *bft.Block:
		return e.validateBlock(x)
	case bft.SignedHeader:
		return e.validateSignature(&x.Header, x.Digest(), x.Signature)
	case bft.Evidence:
		for _, h := range []bft.SignedHeader{x.A, x.B} {
			if err := e.validateSignature(&h.Header, h.Digest(), h.Signature); err != nil {
				return fmt.Errorf("evidence: %w", err)
			}
		}
	}
	return nil
}

// parsedAhead is how many views ahead of this replica's a block may be for what it carries to be
// kept parsed.
const parsedAhead = 8

// leftTo reports whether what a block of a view carries is left to it: it is above the final block,
// and of the current view or the next, or of the same leader's window. A leader whose views come later
// would keep requests from those before, and where it leads again before long, for ever; and one that
// has led, likewise, by blocks that nobody looks at any more and that are no evidence.
func (e *epochRun) leftTo(view bft.View) bool {
	current, window := max(1, bft.View(e.view.Load())), bft.View(e.config.Window)
	return view > bft.View(e.finalView.Load()) && (view <= current+1 || (view-1)/window == (current-1)/window)
}

// validateBlock checks a block's leader, its signature, the form of its payload, and the signatures
// of the requests that are news. That the payload is the header's was checked when the block was
// parsed.
func (e *epochRun) validateBlock(b *bft.Block) error {
	digest := b.Digest()
	if _, known := e.headers.get(digest); known {
		return nil
	}
	if err := e.validateSignature(&b.Header, digest, b.Signature); err != nil {
		return err
	}
	requests, err := request.ParsePayload(b.Payload)
	if err != nil {
		return err
	}
	var news []*request.Request
	for _, r := range requests {
		if !e.r.pool.has(r.Digest()) {
			news = append(news, r)
		}
	}
	for i, ok := range request.VerifyAll(e.config.Cluster, news) {
		if !ok {
			return fmt.Errorf("a block carries a request of client %x with a bad signature", news[i].Client[:4])
		}
	}
	if e.leftTo(b.View) {
		e.r.pool.carried(b.View, requests, time.Now())
	}
	if b.View <= bft.View(e.view.Load())+parsedAhead {
		e.noteProposed(b.View)
		e.r.parsed.add(position{b.Epoch, b.View}, digest, requests)
	}
	return nil
}

func (e *epochRun) validateSignature(h *bft.Header, digest bft.Digest, signature []byte) error {
	if h.Epoch != e.config.Epoch || h.Proposer != e.config.LeaderOf(h.View) {
		return fmt.Errorf("a block of view %d/%d names replica %d as its leader", h.Epoch, h.View, h.Proposer)
	}
	leader := e.membership.Member(h.Proposer)
	if leader == nil || !ed25519.Verify(leader.EpochKey, bft.ProposalBytes(e.config.Cluster, digest), signature) {
		return fmt.Errorf("a block of view %d/%d does not carry its leader's signature", h.Epoch, h.View)
	}
	return nil
}
