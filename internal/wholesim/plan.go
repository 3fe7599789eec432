package wholesim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/reseal-bft/reseal/bft"
)

// plan is what a seed draws: the pace, and what happens when.
type plan struct {
	profile profile
	window  int
	chaos   time.Duration
	large   bool // clients carry much
	events  []event
	// byzantine are the Byzantine replicas and what they do.
	byzantine map[bft.ReplicaID][]string
	// spare are c correct replicas that the cluster can do without: only their disks are put back,
	// replaced or damaged, since who has forgotten its votes sits out an epoch.
	spare []bft.ReplicaID
	// away are those of them that stay down when the faults end.
	away []bft.ReplicaID
}

// event is a fault that begins at a time and ends after another.
type event struct {
	at, lasts time.Duration
	kind      string
	who       []bft.ReplicaID
	amount    int64
}

func (e event) String() string {
	return fmt.Sprintf("%v +%v %s %v %d", e.at.Round(time.Millisecond), e.lasts.Round(time.Millisecond), e.kind, e.who, e.amount)
}

func (p *plan) String() string {
	lines := []string{fmt.Sprintf("pace %s, window %d, Byzantine %v, away in the end %v, faults for %v",
		p.profile.name, p.window, p.byzantine, p.away, p.chaos.Round(time.Second))}
	for _, e := range p.events {
		lines = append(lines, e.String())
	}
	return strings.Join(lines, "\n")
}

func newPlan(seed uint64, o Options) *plan {
	rng := rand.New(rand.NewPCG(seed, 4))
	p := &plan{profile: profiles[rng.IntN(len(profiles))], window: 1 + rng.IntN(4)}
	p.chaos = between(rng, p.profile.chaosLow, p.profile.chaosHigh)
	p.large = rng.IntN(4) == 0
	n := bft.Size{F: o.F, C: o.C}.N()
	p.corrupt(rng, n, o)
	if len(o.Faults) == 0 {
		return p
	}
	for range 3 + rng.IntN(12) {
		e := event{at: between(rng, 0, p.chaos), kind: o.Faults[rng.IntN(len(o.Faults))]}
		e.lasts = between(rng, time.Second, p.chaos/time.Duration(2+rng.IntN(8)))
		for _, i := range rng.Perm(n)[:1+rng.IntN(n/2)] {
			e.who = append(e.who, bft.ReplicaID(i+1))
		}
		switch e.kind {
		case "clock":
			// Minutes to hours, in either direction.
			e.amount = int64(between(rng, -4*p.chaos, 4*p.chaos))
		case "power":
			e.amount = int64(rng.IntN(60)) // at that sync
		case "delay":
			e.amount = int64(between(rng, time.Millisecond, time.Duration(p.profile.timeouts.View)/2))
		case "handoff-cut":
			e.amount = int64(rng.IntN(3))
		case "full":
			e.amount = int64(rng.IntN(2))
		case "put-back":
			e.who, e.amount = p.spare, int64(rng.IntN(10)) // to which copy; even: the store alone, without the mark
		case "flipped-bit":
			e.who, e.amount = p.spare, int64(rng.IntN(1<<30)) // which file, and which bit of it
		case "new-disk", "lost-logs":
			e.who = p.spare
		}
		p.events = append(p.events, e)
	}
	slices.SortStableFunc(p.events, func(a, b event) int { return int(a.at - b.at) })
	return p
}

// corrupt chooses the Byzantine replicas, what they do, and who stays away.
func (p *plan) corrupt(rng *rand.Rand, n int, o Options) {
	p.byzantine = make(map[bft.ReplicaID][]string)
	order := rng.Perm(n)
	for _, i := range order[:o.F] {
		var kinds []string
		switch o.Adversary {
		case "none":
			continue
		case "all":
			for _, k := range rng.Perm(len(Adversaries))[:1+rng.IntN(3)] {
				kinds = append(kinds, Adversaries[k])
			}
		default:
			kinds = []string{o.Adversary}
		}
		p.byzantine[bft.ReplicaID(i+1)] = kinds
	}
	for _, i := range order[o.F : o.F+o.C] {
		p.spare = append(p.spare, bft.ReplicaID(i+1))
	}
	if rng.IntN(3) == 0 && len(o.Faults) > 0 {
		p.away = p.spare
	}
}

func between(rng *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(rng.Int64N(int64(max(0, high-low))+1))
}

// carried is how many bytes an operation carries. Not very many: the file system in memory copies
// the whole of a file at each sync.
func (p *plan) carried(rng *rand.Rand) int {
	if p.large && rng.IntN(8) == 0 {
		return rng.IntN(24 << 10)
	}
	return rng.IntN(100)
}
