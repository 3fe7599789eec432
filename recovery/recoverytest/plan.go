package recoverytest

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/reseal-bft/reseal/bft"
)

// Mishap is what befalls a replica besides.
type Mishap int

// The mishaps. One that costs a replica its share is mended in the turn after.
const (
	NoMishap         Mishap = iota
	Quarantined             // by order
	MissesDeadline          // due, and does not reboot; it may be one that the intruder is in, who suppresses it
	ComesBackLate           // down during the handoff
	CutOff                  // the network brings it nothing during the handoff
	CrashesInHandoff        // in the middle of it
	RestartsPlanted         // one that the intruder is in, and which is not due: it finds a share of the intruder's, sealed under the key that the log names
)

func (m Mishap) String() string {
	return [...]string{"nothing befalls", "is quarantined", "is due and does not reboot", "is down during the handoff and comes back late",
		"is cut off during the handoff", "crashes in the middle of the handoff", "restarts in the middle of the handoff and finds a share that the intruder planted"}[m]
}

// costsShare: the replica is not among the holders of the next epoch. One that was down or cut off
// is, and completes its share later.
func (m Mishap) costsShare() bool { return m == Quarantined || m == MissesDeadline }

// Turn is one epoch and the handoff that ends it.
type Turn struct {
	// Enter are the replicas that the intruder goes into, besides those that it is in already.
	Enter []bft.ReplicaID
	// Plants: in those it seals keys of its own for the next epoch, and leaves in device and on
	// disk what else it can.
	Plants bool
	// Skew is what it makes of the clocks where it is.
	Skew time.Duration
	// Recovers is due and reboots, with those that have no share; 0: only those. Where the intruder
	// is and the machine does not reboot, it stays.
	Recovers bft.ReplicaID
	Mishap   Mishap
	Whom     bft.ReplicaID
	// Behind is one to which the network brings nothing any more, in turns on end, but what the
	// intruder says where it is. Before it hears of the others again it is asked for what it gives
	// under the keys that its log names. HasDealt: it is cut off in the middle of the first handoff.
	Behind   bft.ReplicaID
	HasDealt bool
	// Revokes: the operator revokes a boot state, on machines that have TPMs.
	Revokes bool
}

// Plan is a run, drawn from a seed.
type Plan struct {
	Seed  uint64
	F, C  int
	Turns []Turn
	// Patience is how long a cluster may take for a step; 0: three minutes.
	Patience time.Duration
}

func (p *Plan) patience() time.Duration { return cmp.Or(p.Patience, 3*time.Minute) }

// NewPlan draws a plan. Most clusters are of the smallest size: a replica's share is worth the same
// in all.
func NewPlan(seed uint64) Plan {
	d := drawing{Rand: rand.New(rand.NewPCG(seed, 8)), size: bft.Size{F: 1}}
	switch d.IntN(16) {
	case 0:
		d.size.F = 2
	case 1:
		d.size.C = 1
	case 5, 6, 7:
		d.size.F += d.IntN(8) / 7
		return Plan{Seed: seed, F: d.size.F, Turns: d.leftBehind()}
	}
	p := Plan{Seed: seed, F: d.size.F, C: d.size.C}
	turns := 3 + d.IntN(2)
	revokes := d.IntN(turns)
	for i := range turns {
		t := d.turn()
		t.Revokes = i > 0 && i == revokes
		p.Turns = append(p.Turns, t)
	}
	return p
}

// drawing is where a plan has got to.
type drawing struct {
	*rand.Rand
	size   bft.Size
	inside []bft.ReplicaID
	lapsed bft.ReplicaID // without a share: due in the next turn
}

// leftBehind draws turns in which one is cut off, while the intruder goes from one of the others to
// the next, each before it recovers.
func (d *drawing) leftBehind() (turns []Turn) {
	left := d.other()
	met := []bft.ReplicaID{left}
	move := func(behind bft.ReplicaID) {
		t := Turn{Plants: d.IntN(3) > 0, Behind: behind}
		for len(d.inside) < d.size.F && len(met) < d.size.N() {
			id := d.other(met...)
			t.Enter, d.inside, met = append(t.Enter, id), append(d.inside, id), append(met, id)
		}
		if t.Recovers = d.other(left); len(d.inside) > 0 {
			t.Recovers = d.inside[0]
		}
		d.inside = without(d.inside, t.Recovers)
		turns = append(turns, t)
	}
	first := d.IntN(2)
	if first == 1 {
		turns = append(turns, Turn{Recovers: d.other(left)})
	}
	for range d.size.F + 1 + d.IntN(2) {
		move(left)
	}
	turns[first].HasDealt = d.IntN(2) == 0
	move(0)
	return turns
}

func (d *drawing) turn() Turn {
	t := Turn{Plants: d.IntN(3) > 0}
	for len(d.inside) < d.size.F && d.IntN(8) > 0 {
		id := d.other(d.inside...)
		if d.lapsed != 0 && d.IntN(2) == 0 && !slices.Contains(d.inside, d.lapsed) {
			id = d.lapsed // what it held of the epoch that it missed must be gone
		}
		t.Enter, d.inside = append(t.Enter, id), append(d.inside, id)
	}
	stays := d.IntN(5) == 0
	t.Recovers = d.other(append(slices.Clone(d.inside), d.lapsed)...)
	if holders := without(d.inside, d.lapsed); len(holders) > 0 && !stays {
		t.Recovers = holders[d.IntN(len(holders))]
	}
	d.mishap(&t)
	if t.Mishap == NoMishap && d.lapsed == 0 && len(d.inside) > 0 {
		t.Skew = [...]time.Duration{0, 0, -time.Hour, time.Hour}[d.IntN(4)]
	}
	d.inside = without(d.inside, t.Recovers, d.lapsed)
	if d.lapsed = 0; t.Mishap.costsShare() {
		d.lapsed = t.Whom
	}
	return t
}

// mishap draws what befalls whom. Two lapses at once would leave a small cluster without a quorum.
func (d *drawing) mishap(t *Turn) {
	stay := without(d.inside, t.Recovers, d.lapsed)
	switch {
	case d.lapsed == 0 && len(stay) > 0 && d.IntN(2) == 0:
		t.Mishap, t.Whom = RestartsPlanted, stay[0]
		return
	case d.lapsed == 0:
		t.Mishap = [...]Mishap{NoMishap, Quarantined, Quarantined, MissesDeadline, ComesBackLate, CutOff, CrashesInHandoff}[d.IntN(7)]
	case d.IntN(3) == 0:
		t.Mishap = CrashesInHandoff
	}
	switch t.Mishap {
	case NoMishap:
	case MissesDeadline: // no two that hold a share are due at once
		t.Whom = d.other()
		if len(d.inside) > 0 && d.IntN(2) == 0 {
			t.Whom = d.inside[0]
		}
		t.Recovers = 0
	default:
		t.Whom = d.other(append(slices.Clone(d.inside), t.Recovers)...)
	}
}

// other draws a replica that is none of some.
func (d *drawing) other(but ...bft.ReplicaID) bft.ReplicaID {
	for {
		id := bft.ReplicaID(d.IntN(d.size.N()) + 1)
		if !slices.Contains(but, id) {
			return id
		}
	}
}

func without(ids []bft.ReplicaID, but ...bft.ReplicaID) []bft.ReplicaID {
	return slices.DeleteFunc(slices.Clone(ids), func(id bft.ReplicaID) bool { return slices.Contains(but, id) })
}

// LeavesBehind says whether one is cut off in it for several epochs.
func (p Plan) LeavesBehind() bool {
	return slices.ContainsFunc(p.Turns, func(t Turn) bool { return t.Behind != 0 })
}

// String tells the plan in words.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d replicas, of which the intruder is in up to %d at a time\n", p.Seed, bft.Size{F: p.F, C: p.C}.N(), p.F)
	for i, t := range p.Turns {
		fmt.Fprintf(&b, "  epoch %d:", i+1)
		for _, id := range t.Enter {
			fmt.Fprintf(&b, " the intruder enters replica %d and takes everything;", id)
			if t.Plants {
				b.WriteString(" it leaves keys of its own for the next epoch;")
			}
		}
		if t.Skew != 0 {
			fmt.Fprintf(&b, " the clocks where it is are off by %v;", t.Skew)
		}
		if t.Revokes {
			b.WriteString(" a boot state is revoked;")
		}
		if t.Behind != 0 {
			fmt.Fprintf(&b, " replica %d is cut off", t.Behind)
			if t.HasDealt {
				b.WriteString(" when it has dealt")
			}
			b.WriteString(";")
		}
		if t.Mishap != NoMishap {
			fmt.Fprintf(&b, " replica %d %v;", t.Whom, t.Mishap)
		}
		if t.Recovers != 0 {
			fmt.Fprintf(&b, " replica %d is due and reboots", t.Recovers)
		}
		b.WriteString("\n")
	}
	return b.String()
}
