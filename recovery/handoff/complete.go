package handoff

import (
	"context"
	"fmt"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/threshold"
)

// complete makes this replica's share of the next epoch from the chosen dealings, fetching what it
// lacks of them. When the parts do not give the share that the sharing asks for, those that are bad
// are thrown away, and asked for again.
func (a *attempt) complete(ctx context.Context, chosen []governance.ChosenDealing) error {
	return a.combine(chosen,
		func(c governance.ChosenDealing) (*threshold.Commitment, error) { return a.obtain(ctx, c) },
		func(d []*threshold.CertifiedDealing) (*threshold.Transition, error) { return a.transition(ctx, d) })
}

// resume makes the share of the present epoch again after a start. What was sealed as the share is
// not believed: it is made anew of the dealings that the log has chosen and of the parts that this
// replica kept, once in an epoch. What it lacks, Follow gets from the others.
func (p *Party) resume() {
	p.resuming.Lock()
	defer p.resuming.Unlock()
	v, keeper := p.cfg.State.View(), p.cfg.Keeper
	me := v.Member(p.cfg.Self)
	if v.Epoch == 0 || v.Epoch == p.resumed || !me.HoldsShare || keeper.ready(v.Epoch, me.EpochKey) {
		return
	}
	p.resumed = v.Epoch
	a := p.newAttempt(v, v.LastHandoff.Epoch, v.LastHandoff.Round, me.EpochKey)
	err := a.combine(v.LastHandoff.Dealings, func(c governance.ChosenDealing) (*threshold.Commitment, error) {
		if commitment := keeper.has(a.to, c.Commitment); commitment != nil {
			return commitment, nil
		}
		return nil, errNotHere
	}, a.ownTransition)
	if err != nil {
		p.cfg.Log.Warn("this replica's share cannot be made of what it kept; it is asked for from the others", "epoch", v.Epoch, "error", err)
	}
}

// combine makes the share of the chosen dealings. Commitment sees to it that a dealing is held, and
// returns its commitment.
func (a *attempt) combine(chosen []governance.ChosenDealing, commitment func(governance.ChosenDealing) (*threshold.Commitment, error),
	transition func([]*threshold.CertifiedDealing) (*threshold.Transition, error)) error {
	verifier, err := a.verifier()
	if err != nil {
		return err
	}
	var dealings []*threshold.CertifiedDealing
	for _, c := range chosen {
		commitment, err := commitment(c)
		if err != nil {
			return fmt.Errorf("dealing of %d: %w", c.Dealer, err)
		}
		certified, err := c.Certify(a.p.cfg.Cluster, a.from, a.round, verifier, commitment, dealingContext(a.p.cfg.Cluster, a.from, a.round, c.Dealer))
		if err != nil {
			return fmt.Errorf("dealing of %d: %w", c.Dealer, err)
		}
		dealings = append(dealings, certified)
	}
	t, err := transition(dealings)
	if err != nil {
		return err
	}
	keeper := a.p.cfg.Keeper
	if err = keeper.complete(a.to, t, chosen); err != nil {
		for _, c := range chosen {
			bad := keeper.with(c.Commitment, (*held).verify)
			if bad != nil {
				keeper.abandon(c.Commitment)
			}
		}
	}
	return err
}

// obtain sees to it that a chosen dealing is held, and returns its commitment: as received, or, if
// this replica missed it, completed from the points of others.
func (a *attempt) obtain(ctx context.Context, c governance.ChosenDealing) (*threshold.Commitment, error) {
	keeper := a.p.cfg.Keeper
	if commitment := keeper.has(a.to, c.Commitment); commitment != nil {
		return commitment, nil
	}
	commitment, err := a.p.fetchCommitment(ctx, c)
	if err != nil {
		return nil, err
	}
	var part *threshold.Part
	var bad []int
	err = errNotHere
	points := a.fetchPoints(ctx, c.Commitment, func(points []threshold.Point) bool {
		part, bad, err = commitment.Complete(int(a.p.cfg.Self), points)
		return err == nil
	})
	for i := range points {
		points[i].Wipe()
	}
	if len(bad) > 0 {
		a.p.cfg.Log.Warn("bad points of a dealing", "from", bad, "dealer", c.Dealer)
	}
	if err != nil {
		return nil, err
	}
	return commitment, keeper.keep(&held{to: a.to, round: a.round, commitment: commitment, part: part})
}

// transition combines dealings into the next sharing. A replica that was away when this epoch began
// may lack its sharing; it takes that of another, and the chosen dealings themselves tell whether
// it is the right one.
func (a *attempt) transition(ctx context.Context, dealings []*threshold.CertifiedDealing) (*threshold.Transition, error) {
	if t, err := a.ownTransition(dealings); err == nil || a.from == 0 {
		return t, err
	}
	return a.p.transitionByOthers(ctx, a.from, dealings)
}

// ownTransition combines dealings with what this replica has. The sharing of before may be one that
// was found on the disk: as many dealings as it takes to determine it must agree with it.
func (a *attempt) ownTransition(dealings []*threshold.CertifiedDealing) (*threshold.Transition, error) {
	if a.from == 0 {
		return threshold.KeyGeneration(dealings...)
	}
	sharing := a.p.cfg.Keeper.sharingOf(a.from)
	if sharing == nil {
		return nil, fmt.Errorf("the sharing of epoch %d is not here", a.from)
	}
	return threshold.Resharing(sharing, dealings...)
}

// verifier verifies the certificates by which the dealings of this attempt were accepted: those of
// the epoch in which they were dealt.
func (a *attempt) verifier() (bft.Scheme, error) {
	m := a.p.cfg.State.Membership()
	if a.from == 0 && m.Epoch > 0 {
		m = a.p.cfg.Founding
	}
	return a.p.cfg.Keeper.Verifier(m)
}

// others returns the other members.
func (p *Party) others() []bft.ReplicaID {
	var out []bft.ReplicaID
	for _, m := range p.cfg.State.Membership().Members {
		if m.ID != p.cfg.Self {
			out = append(out, m.ID)
		}
	}
	return out
}
