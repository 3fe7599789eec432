package recoverytest

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/reseal-bft/reseal/bft"
)

// Mishap is what befalls a replica that the intruder is not in.
type Mishap int

// The mishaps. One that costs a replica its share is mended in the turn after.
const (
	NoMishap Mishap = iota
	Quarantined
	MissesDeadline
	ComesBackLate
	CrashesInHandoff
)

func (m Mishap) String() string {
	return [...]string{"nothing befalls", "is quarantined", "is due and does not reboot", "is down during the handoff and comes back late",
		"crashes in the middle of the handoff"}[m]
}

// costsShare: the replica is not among the holders of the next epoch, or not at once.
func (m Mishap) costsShare() bool {
	return m == Quarantined || m == MissesDeadline || m == ComesBackLate
}

// Turn is one epoch and the handoff that ends it.
type Turn struct {
	// Enter is the replica that the intruder goes into; 0 when it is in one already, or stays out.
	Enter bft.ReplicaID
	// Stays: it is not driven out by this turn's handoff.
	Stays bool
	// Plants: it seals an epoch key of its own for the next epoch.
	Plants bool
	// Recovers is due and reboots: where the intruder is, unless it stays.
	Recovers bft.ReplicaID
	Mishap   Mishap
	Whom     bft.ReplicaID
}

// Plan is a run, drawn from a seed.
type Plan struct {
	Seed  uint64
	F, C  int
	Turns []Turn
}

// NewPlan draws a plan. F is 1: a replica's share is worth the same whoever else is held.
func NewPlan(seed uint64) Plan {
	r := rand.New(rand.NewPCG(seed, 8))
	p := Plan{Seed: seed, F: 1}
	n := bft.Size{F: p.F, C: p.C}.N()
	var inside, lapsed bft.ReplicaID
	for range 3 + r.IntN(2) {
		t := Turn{Plants: r.IntN(3) > 0}
		if inside == 0 && r.IntN(8) > 0 {
			inside = other(r, n)
			if lapsed != 0 && r.IntN(2) == 0 {
				inside = lapsed // what it held of the epoch that it missed must be gone
			}
			t.Enter = inside
		}
		t.Stays = inside != 0 && lapsed == 0 && r.IntN(6) == 0
		t.Recovers = inside
		if t.Stays || inside == 0 {
			t.Recovers = other(r, n, inside)
		}
		if lapsed == 0 {
			t.Mishap = Mishap(r.IntN(5))
			if t.Mishap == MissesDeadline && r.IntN(2) > 0 {
				t.Mishap = Quarantined // as good, and nobody waits
			}
		} else if r.IntN(3) == 0 {
			t.Mishap = CrashesInHandoff
		}
		if t.Mishap != NoMishap {
			t.Whom = other(r, n, inside, t.Recovers)
		}
		lapsed = 0
		if t.Mishap.costsShare() {
			lapsed = t.Whom
		}
		if !t.Stays {
			inside = 0
		}
		p.Turns = append(p.Turns, t)
	}
	return p
}

// other draws a replica that is none of some.
func other(r *rand.Rand, n int, but ...bft.ReplicaID) bft.ReplicaID {
	for {
		id := bft.ReplicaID(r.IntN(n) + 1)
		fits := true
		for _, b := range but {
			fits = fits && b != id
		}
		if fits {
			return id
		}
	}
}

// String tells the plan in words.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d replicas, of which the intruder is in %d at a time\n", p.Seed, bft.Size{F: p.F, C: p.C}.N(), p.F)
	for i, t := range p.Turns {
		fmt.Fprintf(&b, "  epoch %d:", i+1)
		if t.Enter != 0 {
			fmt.Fprintf(&b, " the intruder enters replica %d and takes everything;", t.Enter)
			if t.Plants {
				b.WriteString(" it seals a key of its own for the next epoch;")
			}
		}
		if t.Mishap != NoMishap {
			fmt.Fprintf(&b, " replica %d %v;", t.Whom, t.Mishap)
		}
		if t.Stays {
			b.WriteString(" the intruder stays;")
		}
		fmt.Fprintf(&b, " replica %d is due and reboots\n", t.Recovers)
	}
	return b.String()
}
