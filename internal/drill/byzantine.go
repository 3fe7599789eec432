package drill

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/actor"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/internal/stage"
)

// liars are the drills of replicas that do what no correct one would.
var liars = []Drill{
	{
		Name: "byzantine-dealer", keystore: cluster.File, actors: true, play: byzantineDealer,
		Summary: "a replica deals false parts, different commitments, or nothing to some before it is gone: every epoch's change completes, and everybody else votes",
	},
	{
		Name: "equivocating-leader", keystore: cluster.SWTPM, actors: true, play: equivocatingLeader,
		Summary: "a leader signs two blocks for each of its views: the evidence is in the log, and the replica is recovered at once, by a round that nobody ordered",
	},
}

// all has every replica but one dealt with alike.
func (r *Rehearsal) all(but bft.ReplicaID, deal actor.Deal) map[bft.ReplicaID]actor.Deal {
	deals := map[bft.ReplicaID]actor.Deal{}
	for _, m := range r.Machines {
		if m.ID != but {
			deals[m.ID] = deal
		}
	}
	return deals
}

func byzantineDealer(ctx context.Context, r *Rehearsal) error {
	dealer, due := r.Machines[1], r.Machines[2]
	r.liars[dealer.ID] = true
	half := r.all(dealer.ID, "")
	for id := range half {
		if id%2 == 0 || id == 1 { // of n = 6 with the dealer itself three are left: no quorum acknowledges
			half[id] = actor.DealOther
		}
	}
	for _, way := range []struct {
		name  string
		deals map[bft.ReplicaID]actor.Deal
	}{
		{"rows without columns", r.all(dealer.ID, actor.DealRow)},
		{"wrong values", r.all(dealer.ID, actor.DealWrong)},
		{"another commitment to one half", half},
		{"nothing at all", r.all(dealer.ID, actor.DealNothing)},
	} {
		if err := r.direct(dealer.ID, actor.Conduct{Deals: way.deals}); err != nil {
			return err
		}
		r.Show.Event("replica %d deals %s", dealer.ID, way.name)
		before, after, err := r.recover(ctx, due.ID)
		if err != nil {
			return err
		}
		r.Check(after.GroupKey == before.GroupKey && after.Holders() == r.Size.N() && !after.Dealt(dealer.ID), "with a dealer that gives "+way.name,
			"epoch %d began, with %d shares of the same key, of the dealings of %v", after.Epoch, after.Holders(), after.Dealers())
		if err := r.everybodyVotes(ctx, prompt); err != nil {
			return err
		}
	}
	return r.goneDealer(ctx, dealer, due)
}

// goneDealer has a dealing certified of which some have nothing, and its dealer gone when they miss it.
func (r *Rehearsal) goneDealer(ctx context.Context, dealer, due *stage.Machine) error {
	victims := []*stage.Machine{due, r.Machines[3]} // n - q of them: a quorum acknowledges
	deals := map[bft.ReplicaID]actor.Deal{}
	for _, m := range victims {
		deals[m.ID] = actor.DealNothing
	}
	for _, m := range r.Machines { // the others are a little slow, so that this dealing is among the first
		if m != dealer && m != due {
			if err := r.direct(m.ID, actor.Conduct{Deals: r.all(0, actor.DealLate)}); err != nil {
				return err
			}
		}
	}
	if err := r.direct(dealer.ID, actor.Conduct{Deals: deals}); err != nil {
		return err
	}
	r.Show.Event("replica %d deals nothing to replicas %d and %d, and the right parts to the others", dealer.ID, victims[0].ID, victims[1].ID)
	before, err := r.OpenRound(ctx, due.ID)
	if err != nil {
		return err
	}
	due.Crash()
	if err := r.Reboot(due); err != nil {
		return err
	}
	after, err := r.AwaitEpoch(ctx, before.Epoch+1)
	if err != nil {
		return err
	}
	dealer.Crash()
	r.Show.Event("replica %d is gone as epoch %d begins", dealer.ID, after.Epoch)
	r.Check(after.GroupKey == before.GroupKey && after.Holders() == r.Size.N() && after.Dealt(dealer.ID), "a dealing of which two have nothing is certified, and chosen",
		"epoch %d is made of the dealings of %v", after.Epoch, after.Dealers())
	for _, m := range victims {
		if err := r.AwaitBack(ctx, m, after); err != nil {
			return err
		}
		r.Check(true, fmt.Sprintf("replica %d has its share without its dealer", m.ID), "it votes in epoch %d", after.Epoch)
	}
	if err := r.writes(ctx, "without the dealer"); err != nil {
		return err
	}
	if err := r.direct(dealer.ID, actor.Conduct{}); err != nil {
		return err
	}
	if err := dealer.Act(r.Program, r.conduct(dealer.ID)); err != nil {
		return err
	}
	return r.everybodyVotes(ctx, 20*time.Second)
}

// early is how soon a replica that was proven Byzantine is to be due.
const early = 15 * time.Second

func equivocatingLeader(ctx context.Context, r *Rehearsal) error {
	before, err := r.Await(ctx, "the replicas tell their state", func(*stage.Sight) bool { return true })
	if err != nil {
		return err
	}
	liar := r.Machines[before.Leaders[0]-1]
	r.liars[liar.ID] = true
	if err := r.direct(liar.ID, actor.Conduct{Equivocate: true}); err != nil {
		return err
	}
	r.Show.Event("replica %d signs two blocks for every view that it leads, and shows one half of the others the one, the other half the other", liar.ID)
	began := time.Now()
	opened, err := r.Await(ctx, "it is due", func(v *stage.Sight) bool {
		return v.Member(liar.ID).Accused && len(v.Due) > 0
	})
	if err != nil {
		return err
	}
	took := time.Since(began)
	r.Check(opened.OrderSequence == before.OrderSequence && len(opened.Due) == 1 && opened.Due[0] == liar.ID && opened.Epoch == before.Epoch,
		"the evidence is in the log, and opens a round for that replica", "round %d, due: %v, %s", opened.Round, opened.Due, opened.Member(liar.ID).Status)
	r.Check(took < early, "without an order, and at once", "%.1f s after its first two blocks", took.Seconds())
	for _, m := range r.Machines {
		if line := r.accusation(m, liar.ID); m != liar && line == "" {
			r.Show.Event("replica %d has not seen both blocks itself", m.ID)
		} else if m != liar {
			r.Check(true, "a replica that has both blocks says so", "%s", line)
			break
		}
	}
	if err := r.writes(ctx, "while it equivocates"); err != nil {
		return err
	}
	if _, err := r.Await(ctx, "its present boot is shown", func(v *stage.Sight) bool {
		return v.Epoch > opened.Epoch || v.Phase != cluster.PhaseAttesting || v.Member(liar.ID).Awaited.Shown
	}); err != nil {
		return err
	}
	liar.Crash()
	if err := r.direct(liar.ID, actor.Conduct{}); err != nil {
		return err
	}
	if err := r.Reboot(liar); err != nil { // into what it should be
		return err
	}
	after, err := r.AwaitEpoch(ctx, opened.Epoch+1)
	if err != nil {
		return err
	}
	if err := r.AwaitBack(ctx, liar, after); err != nil {
		return err
	}
	now := after.Member(liar.ID)
	r.Check(!now.Accused && now.HoldsShare && now.Attested && now.RecoveredEpoch == after.Epoch, "rebooted, it has a share, and a clean slate", "%s", now.Status)
	return r.everybodyVotes(ctx, 20*time.Second)
}

// accusation is what a replica's log says of two blocks of a leader.
func (r *Rehearsal) accusation(m *stage.Machine, leader bft.ReplicaID) string {
	line := lineWith(r.log(m), "signed two blocks for one view")
	if !strings.Contains(line, fmt.Sprintf("replica=%d view=", leader)) {
		return ""
	}
	return line
}
