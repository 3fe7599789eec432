package replica

import "github.com/reseal-bft/reseal/bft"

// checkLoop combines and verifies certificates. It verifies all that are waiting at once: one
// multi-pairing for many.
func (e *epochRun) checkLoop() error {
	var batch []bft.Effect
	for {
		if batch = e.checks.take(e.ctx, batch); batch == nil {
			return e.ctx.Err()
		}
		var verify []bft.Verify
		for _, effect := range batch {
			switch x := effect.(type) {
			case bft.Combine:
				e.combine(x)
			case bft.Verify:
				verify = append(verify, x)
			}
		}
		e.verify(verify)
	}
}

func (e *epochRun) combine(c bft.Combine) {
	signature, bad, err := e.keys.Scheme.Combine(c.Statement.Bytes(e.config.Cluster), c.Partials)
	if len(bad) > 0 {
		e.r.log.Warn("bad partial signatures", "from", bad, "view", c.Statement.View)
	}
	if err != nil {
		signature = nil
	}
	e.events.put(bft.Combined{Statement: c.Statement, Signature: signature, Bad: bad})
}

func (e *epochRun) verify(waiting []bft.Verify) {
	if len(waiting) == 0 {
		return
	}
	messages := make([][]byte, len(waiting))
	signatures := make([][]byte, len(waiting))
	for i, v := range waiting {
		messages[i], signatures[i] = v.Certificate.Statement.Bytes(e.config.Cluster), v.Certificate.Signature
	}
	for i, ok := range e.keys.Scheme.Verify(messages, signatures) {
		if !ok {
			e.r.log.Warn("bad certificate", "from", waiting[i].From, "view", waiting[i].Certificate.View)
		}
		e.events.put(bft.Verified{Certificate: waiting[i].Certificate, From: waiting[i].From, OK: ok})
	}
}
