package bft

import "slices"

// maxVerifying bounds the certificates of one statement that are checked at a time: a forged one
// must not keep out a good one for long.
const maxVerifying = 2

// maxPeerVerifying bounds the certificates of one peer that are checked at a time.
const maxPeerVerifying = maxProofs

// onCertificate has a peer's certificate verified when it is news and no answer is awaited that
// would make it superfluous.
func (c *Core) onCertificate(from ReplicaID, cert Certificate) {
	if c.peers[from].forged || c.peers[from].verifying >= maxPeerVerifying || cert.View < c.views.low || len(cert.Signature) == 0 {
		return
	}
	if cert.Kind == Finalize && cert.View <= c.proof.View || cert.Kind != Finalize && cert.View <= c.finalView {
		return
	}
	r := c.ensure(cert.View)
	if r == nil {
		return
	}
	t := r.find(cert.Kind, cert.Block)
	if t == nil {
		if len(r.tallies) > len(c.peers)*(maxFallback+2) {
			return
		}
		t = c.tally(r, cert.Kind, cert.Block)
	}
	if t.certificate != nil || t.combining || t.verifying >= maxVerifying {
		return
	}
	t.verifying++
	c.peers[from].verifying++
	c.do(Verify{cert, from})
}

// verified takes in the answer to Verify.
func (c *Core) verified(ev Verified) {
	cert := ev.Certificate
	if int(ev.From) >= len(c.peers) || cert.Epoch != c.cfg.Epoch {
		return
	}
	c.peers[ev.From].verifying--
	c.peers[ev.From].forged = c.peers[ev.From].forged || !ev.OK
	r := c.at(cert.View)
	if r == nil {
		return
	}
	t := r.find(cert.Kind, cert.Block)
	if t == nil || t.verifying == 0 {
		return
	}
	t.verifying--
	switch {
	case t.certificate != nil:
	case ev.OK:
		c.certified(cert)
		c.page(ev.From, cert)
	default:
		c.tryCombine(t)
	}
}

// page asks a peer for more certificates on the way through a gap: first when its certificate shows
// that there is one, then when what it could answer is used up.
func (c *Core) page(peer ReplicaID, cert Certificate) {
	first := c.unresolved()
	if cert.Kind == Nullify && first < c.view && !c.stopped && (c.paged == 0 || first >= c.paged+maxProofs) {
		c.paged = first
		c.do(Send{peer, c.status()})
	}
}

// certified acts on a certificate that is new and good.
func (c *Core) certified(cert Certificate) {
	r := c.at(cert.View)
	r.find(cert.Kind, cert.Block).certificate = cert.Signature
	c.do(StoreCertificate{cert})
	switch cert.Kind {
	case Notarize:
		c.notarized(r, cert)
	case Nullify:
		c.nullified(r, cert)
	case Finalize:
		c.finalized(r, cert)
	}
	c.advance(r)
}

// notarized acts on a new notarization: the block may be built upon, the next view begins.
func (c *Core) notarized(r *round, cert Certificate) {
	c.relay(r, cert)
	c.solid = max(c.solid, r.view+1)
	if r.notarizedAt == 0 {
		r.notarizedAt = c.now
	}
	n := r.node(cert.Block)
	if n == nil {
		c.request(cert.Block, cert.View, true)
	} else {
		n.notarized = true
		if n.linked {
			c.certifies(n)
		}
	}
	if r.view > c.firmView {
		if c.slow || r.view <= c.trouble || r.view%finalizeEvery == 0 || n != nil && n.EpochEnd {
			c.tryFinalize(r, cert.Block)
		}
		if c.clock.deadline[TimerFinalize] == 0 {
			c.clock.arm(c, TimerFinalize, c.now+milliseconds(c.cfg.Timeouts.Finalize))
		}
	}
	c.clock.succeeded(c, r.view)
	if r.view >= c.view {
		c.enter(r.view + 1)
	}
	c.tryFast(r, r.find(Notarize, cert.Block))
	if c.at(r.view) == r {
		c.answerAskers(r, cert.Block)
	}
}

// nullified acts on a new nullification: the next view begins.
func (c *Core) nullified(r *round, cert Certificate) {
	c.relay(r, cert)
	c.trouble = max(c.trouble, r.view+2*View(c.cfg.Window))
	if r.view >= c.view {
		c.clock.failed(c, r.view)
		c.enter(r.view + 1)
	}
}

// relay sends a certificate on to all when it ends the current view, or when the view has another
// certificate already: a leader may build on either.
func (c *Core) relay(r *round, cert Certificate) {
	others := 0
	for i := range r.tallies {
		if t := &r.tallies[i]; t.certificate != nil && t.Kind != Finalize {
			others++
		}
	}
	if r.view >= c.view || others > 1 {
		c.do(Broadcast{cert})
	}
}

// enter begins a view. Its leader proposes, and its timer runs.
func (c *Core) enter(v View) {
	if v > c.lastView() || c.ensure(v) == nil {
		return
	}
	c.view = v
	c.missing = slices.DeleteFunc(c.missing, c.isIdle)
	c.shutBelow()
	c.clock.enter(c)
}

// finalized acts on a finalization: its block and all before it are final, and there is a proof for
// everybody.
func (c *Core) finalized(r *round, cert Certificate) {
	if cert.View > c.proof.View {
		c.proof = cert
	}
	if cert.View <= c.finalView {
		c.provenHeight = max(c.provenHeight, r.height)
		c.firmTo(r.view, r.height)
	} else if cert.View > c.certain.view {
		c.certain = finality{cert.View, cert.Block}
	}
}
