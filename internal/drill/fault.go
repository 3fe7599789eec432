package drill

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/actor"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/internal/stage"
)

// faults are the drills of accidents, and of Byzantine replicas.
var faults = []Drill{
	{
		Name: "power-cut", keystore: cluster.SWTPM, play: powerCut,
		Summary: "the power of all machines fails in the middle of a handoff, again and again: the round goes on where it was, with the same group key",
	},
	{
		Name: "clock-jump", keystore: cluster.File, actors: true, play: clockJump,
		Summary: "clocks jump by minutes and hours, alone and together: nobody waits for block time to catch up",
	},
	{
		Name: "long-partition", keystore: cluster.File, actors: true, play: longPartition,
		Summary: "no side of a partition has a quorum for a minute; after it has healed the service goes on at once, and everybody votes",
	},
	{
		Name: "store-put-back", keystore: cluster.File, play: storePutBack,
		Summary: "a replica's store is put back to what it was: it says so, casts no vote in this epoch, and is back in the next",
	},
	{
		Name: "slow-peer", keystore: cluster.File, actors: true, play: slowPeer,
		Summary: "a replica comes back, and f others serve it a byte a second: it votes all the same",
	},
	{
		Name: "f-and-c", keystore: cluster.SWTPM, play: fAndC,
		Summary: "f replicas are silent while c others are in recovery, again and again: the service goes on",
	},
}

// moments are how long after the evidence of the due replica the power fails. A handoff takes some
// 100 ms on this machine.
var moments = []time.Duration{0, 40 * time.Millisecond, 120 * time.Millisecond}

func powerCut(ctx context.Context, r *Rehearsal) error {
	for _, moment := range moments {
		before, err := r.OpenRound(ctx)
		if err != nil {
			return err
		}
		due := r.MachinesOf(before.Due)
		for _, m := range due {
			m.Crash()
		}
		if err := r.Reboot(due...); err != nil {
			return err
		}
		if _, err := r.Await(ctx, "the evidence is accepted", func(v *stage.Sight) bool { return v.Phase != cluster.PhaseAttesting || v.Epoch > before.Epoch }); err != nil {
			return err
		}
		if err := r.Pass(ctx, moment); err != nil {
			return err
		}
		began := time.Now()
		for _, m := range r.Machines {
			m.Crash()
		}
		r.Show.Event("the power fails %v after the evidence was seen", moment)
		if err := r.Reboot(r.Machines...); err != nil {
			return err
		}
		after, err := r.AwaitEpoch(ctx, before.Epoch+1)
		if err != nil {
			return err
		}
		if err := r.Serves(ctx); err != nil {
			return err
		}
		r.Check(after.GroupKey == before.GroupKey && after.Holders() >= r.Size.Quorum(), fmt.Sprintf("a power cut %v into the handoff", moment),
			"epoch %d began, %d replicas hold shares of the same key, the next write took %.1f s", after.Epoch, after.Holders(), time.Since(began).Seconds())
	}
	return nil
}

// prompt is how soon a write must be acknowledged after something that must not stop the service.
const prompt = 5 * time.Second

// writes checks that writes go on at once.
func (r *Rehearsal) writes(ctx context.Context, when string) error {
	began := time.Now()
	if err := r.Serves(ctx); err != nil {
		return err
	}
	took := time.Since(began)
	r.Check(took < prompt, "writes go on "+when, "the next one was acknowledged after %d ms", took.Milliseconds())
	return nil
}

// everybodyVotes checks that all replicas vote within a time.
func (r *Rehearsal) everybodyVotes(ctx context.Context, within time.Duration) error {
	began := time.Now()
	_, err := r.Await(ctx, "every replica votes", r.everybody)
	if err != nil {
		return err
	}
	took := time.Since(began)
	r.Check(took < within, "every replica votes again", "after %d ms", took.Milliseconds())
	return nil
}

// everybody reports whether all replicas vote.
func (r *Rehearsal) everybody(v *stage.Sight) bool {
	return !slices.ContainsFunc(r.Machines, func(m *stage.Machine) bool { return !v.Votes(m.ID, v.Epoch) })
}

func clockJump(ctx context.Context, r *Rehearsal) error {
	jumps := []struct {
		when  string
		ahead func(bft.ReplicaID) time.Duration
	}{
		{"with all clocks two minutes ahead", func(bft.ReplicaID) time.Duration { return 2 * time.Minute }},
		{"after all clocks were corrected", func(bft.ReplicaID) time.Duration { return 0 }},
		{"with one clock an hour back", func(id bft.ReplicaID) time.Duration { return map[bft.ReplicaID]time.Duration{1: -time.Hour}[id] }},
		{"with one clock a day ahead", func(id bft.ReplicaID) time.Duration { return map[bft.ReplicaID]time.Duration{2: 24 * time.Hour}[id] }},
		{"with all clocks an hour back", func(bft.ReplicaID) time.Duration { return -time.Hour }},
	}
	for _, jump := range jumps {
		for _, m := range r.Machines {
			if err := r.direct(m.ID, actor.Conduct{ClockAhead: jump.ahead(m.ID)}); err != nil {
				return err
			}
		}
		if err := r.Pass(ctx, time.Second); err != nil { // every actor has heard
			return err
		}
		if err := r.writes(ctx, jump.when); err != nil {
			return err
		}
	}
	return r.everybodyVotes(ctx, prompt)
}

// partition is how long no side has a quorum.
const partition = time.Minute

func longPartition(ctx context.Context, r *Rehearsal) error {
	half := bft.ReplicaID(r.Size.N() / 2)
	sides := map[bool][]bft.ReplicaID{}
	for _, m := range r.Machines {
		sides[m.ID <= half] = append(sides[m.ID <= half], m.ID)
	}
	for _, m := range r.Machines {
		if err := r.direct(m.ID, actor.Conduct{Cut: sides[m.ID > half]}); err != nil {
			return err
		}
	}
	r.Show.Event("replicas %v and %v do not hear each other for %v", sides[true], sides[false], partition)
	if err := r.Pass(ctx, partition); err != nil {
		return err
	}
	for _, m := range r.Machines {
		if err := r.direct(m.ID, actor.Conduct{}); err != nil {
			return err
		}
	}
	r.Show.Event("the network is whole again")
	if err := r.writes(ctx, "after the partition"); err != nil {
		return err
	}
	return r.everybodyVotes(ctx, prompt)
}

func storePutBack(ctx context.Context, r *Rehearsal) error {
	m := r.Machines[0]
	old := filepath.Join(r.Scratch, "old-store")
	m.Crash()
	if err := os.CopyFS(old, os.DirFS(m.Dir.Store())); err != nil {
		return err
	}
	if err := r.Reboot(m); err != nil {
		return err
	}
	before, err := r.Await(ctx, "the replica votes", func(v *stage.Sight) bool { return v.Votes(m.ID, v.Epoch) })
	if err != nil {
		return err
	}
	if err := r.Pass(ctx, 3*time.Second); err != nil { // it votes on, and leaves its mark
		return err
	}
	m.Crash()
	err = os.RemoveAll(m.Dir.Store())
	if err == nil {
		err = os.CopyFS(m.Dir.Store(), os.DirFS(old))
	}
	if err != nil {
		return err
	}
	r.Show.Event("the store of replica %d is put back by some seconds", m.ID)
	if err := r.Reboot(m); err != nil {
		return err
	}
	seen, err := r.Await(ctx, "the replica is heard", func(v *stage.Sight) bool {
		info := v.Replicas[m.ID-1].Info
		return info != nil && (info.Amnesia || info.Voter)
	})
	if err != nil {
		return err
	}
	info := seen.Replicas[m.ID-1].Info
	r.Check(info.Amnesia && !info.Voter && seen.Epoch == before.Epoch, "it notices, and casts no vote in this epoch", "%s", info.AmnesiaReason)
	if _, _, err := r.recover(ctx, m.ID%bft.ReplicaID(r.Size.N())+1); err != nil {
		return err
	}
	after, err := r.Await(ctx, "it votes in the next epoch", func(v *stage.Sight) bool { return v.Votes(m.ID, before.Epoch+1) })
	if err == nil {
		r.Check(true, "it votes in the next epoch", "epoch %d", after.Epoch)
	}
	return err
}

func slowPeer(ctx context.Context, r *Rehearsal) error {
	m := r.Machines[0]
	m.Crash()
	for _, peer := range r.Machines[1 : 1+r.Size.F] {
		if err := r.direct(peer.ID, actor.Conduct{BytesPerSecond: 1}); err != nil {
			return err
		}
	}
	if err := r.Pass(ctx, 10*time.Second); err != nil {
		return err
	}
	began := time.Now()
	if err := m.Act(r.Program, r.conduct(m.ID)); err != nil {
		return err
	}
	if _, err := r.Await(ctx, "the replica votes", func(v *stage.Sight) bool { return v.Votes(m.ID, v.Epoch) }); err != nil {
		return err
	}
	took := time.Since(began)
	r.Check(took < 20*time.Second, "it is back in time", "it votes after %.1f s, ten seconds of load behind", took.Seconds())
	return r.writes(ctx, "while it came back")
}

func fAndC(ctx context.Context, r *Rehearsal) error {
	for range 3 {
		before, err := r.OpenRound(ctx)
		if err != nil {
			return err
		}
		due := r.MachinesOf(before.Due)
		leaders := stage.LeadersBut(before.Leaders, before.Due)
		silent := r.MachinesOf(leaders[:r.Size.F])
		for _, m := range append(silent, due...) {
			m.Crash()
		}
		r.Show.Event("replicas %v are in recovery, and %v is silent", before.Due, leaders[:r.Size.F])
		if err := r.writes(ctx, "with f silent and c in recovery"); err != nil {
			return err
		}
		if err := r.Reboot(due...); err != nil {
			return err
		}
		after, err := r.AwaitEpoch(ctx, before.Epoch+1)
		if err != nil {
			return err
		}
		for _, m := range due {
			if err := r.AwaitBack(ctx, m, after); err != nil {
				return err
			}
		}
		r.Check(true, "who recovers gets its share with f silent", "epoch %d", after.Epoch)
		if err := r.Reboot(silent...); err != nil {
			return err
		}
		if err := r.everybodyVotes(ctx, 20*time.Second); err != nil {
			return err
		}
	}
	return nil
}
