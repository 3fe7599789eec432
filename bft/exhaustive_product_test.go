package bft

import (
	"fmt"
	"math/big"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEquivocationExhaustively(t *testing.T) {
	sizes := []Size{{1, 0}, {1, 1}}
	if *exhaustive {
		sizes = append(sizes, Size{1, 2}, Size{1, 3})
	}
	for _, size := range sizes {
		t.Run(fmt.Sprintf("f=%d,c=%d", size.F, size.C), func(t *testing.T) {
			p := newProduct(t, size)
			require.NoError(t, p.check())
			next := newReplica(t, size, 2)
			slices.Reverse(next.peers)
			require.NoError(t, next.grow())
			require.Equal(t, p.replica.set(), next.set(), "it makes a difference who leads the next view, or how replicas are numbered")
			t.Logf("%d local states of a replica, %d steps of the core; %.3g states of the view up to permutation of replicas, in %d classes, and %d classes of states at rest",
				len(p.replica.states), p.replica.steps+next.steps, p.covered, p.moving, p.resting)
		})
	}
}

// product puts the local states of all correct replicas together.
type product struct {
	replica *replica
	size    Size
	reached map[votes][]*localState
	covered *big.Float // states of the view
	// moving and resting are the classes of states that were checked: of all states, and of those
	// in which nothing is under way.
	moving, resting int
}

func newProduct(t *testing.T, size Size) *product {
	return &product{replica: newReplica(t, size, ReplicaID(size.N())), size: size, reached: make(map[votes][]*localState), covered: new(big.Float)}
}

// check checks everything that there is to check for a size.
func (p *product) check() error {
	if err := p.replica.grow(); err != nil {
		return err
	}
	p.replica.measure()
	if err := p.replica.closed(); err != nil {
		return err
	}
	if err := p.safe(); err != nil {
		return err
	}
	return p.resolved()
}

// group is the correct replicas that cast the same first vote: how many there are, and what each of
// them may have signed.
type group struct {
	size   int
	signed []uint8
}

// states returns the states, of those wanted, that a replica with a first vote of a kind can be in
// when all correct replicas cast these first votes.
func (p *product) states(kind int, cast votes, want func(*localState) bool) (states []*localState) {
	cast[kind]--
	if cast[0] = 0; p.reached[cast] == nil {
		p.reached[cast] = p.replica.reach(cast)
	}
	first := uint8(1) << kind >> 1
	for _, l := range p.reached[cast] {
		if l.first == first && want(l) {
			states = append(states, l)
		}
	}
	return states
}

// newGroup sums up what replicas in some states have signed.
func newGroup(size int, states []*localState) group {
	var seen [1 << 5]bool
	g := group{size: size}
	for _, l := range states {
		if !seen[l.signed] {
			seen[l.signed] = true
			g.signed = append(g.signed, l.signed)
		}
	}
	return g
}

// safe checks every state of the view: each correct replica is in any state that the first votes
// cast so far allow.
func (p *product) safe() error {
	return eachVotes(p.size.N()-p.size.F, p.size.N(), func(cast votes) error {
		var groups []group
		covered := big.NewFloat(1)
		for kind, size := range cast {
			if size > 0 {
				states := p.states(kind, cast, func(*localState) bool { return true })
				groups = append(groups, newGroup(int(size), states))
				ways := new(big.Int).Binomial(int64(len(states)+int(size)-1), int64(size))
				covered.Mul(covered, new(big.Float).SetInt(ways))
			}
		}
		p.covered.Add(p.covered, covered)
		return eachClass(groups, [5]int{}, func(signed [5]int) error {
			p.moving++
			return p.contradiction(cast, signed)
		})
	})
}

var statementNames = [5]string{"notarize 1", "notarize 2", "nullify", "finalize 1", "finalize 2"}

// contradiction reports what can be certified against each other, or without a reason. The
// Byzantine replica adds its vote to any.
func (p *product) contradiction(cast votes, signed [5]int) error {
	certified := func(s int) bool { return signed[s]+p.size.F >= p.replica.combines }
	for b := range 2 {
		fast := int(cast[b+1])+p.size.F >= p.replica.finalizes
		if !fast && !certified(3+b) {
			continue
		}
		for _, s := range []int{1 - b, 2, 4 - b} {
			if certified(s) {
				return fmt.Errorf("first votes %v, signed %v: block %d can be final (fast: %t), and %s can have a certificate", cast, signed, b+1, fast, statementNames[s])
			}
		}
	}
	return nil
}

// resolved checks every state at rest: the correct replicas that are up, q or more, have cast their
// first votes and received each other's; those that are down may have reached anybody with theirs
// before; a block that a replica has asked for and that a correct one holds and is up to serve has
// come; and nobody has left the view, for then its certificate would be under way. The votes of the
// replicas that are up must be enough for a certificate.
func (p *product) resolved() error {
	for down := 0; down <= p.size.C; down++ {
		err := eachVotes(p.size.N()-p.size.F-down, 0, func(up votes) error {
			return eachVotes(down, down, func(gone votes) error {
				for _, evidence := range []bool{false, true} {
					if err := p.resolvedFor(up, gone, evidence); err != nil {
						return err
					}
				}
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// resolvedFor checks the states at rest with given first votes, with evidence or without. Without
// is impossible when replicas that are up voted for both blocks: rule 6 gives both headers to one
// of them (checkStep), which tells all.
func (p *product) resolvedFor(up, gone votes, evidence bool) error {
	if up[1] > 0 && up[2] > 0 && !evidence {
		return nil
	}
	var groups []group
	for kind := 1; kind <= nullifyKind; kind++ {
		if up[kind] > 0 {
			others := up
			others[kind]--
			groups = append(groups, newGroup(int(up[kind]), p.states(kind, up.plus(gone), func(l *localState) bool {
				return !l.left && l.convicted == evidence && l.votes.contain(others) && !l.awaits(up)
			})))
		}
	}
	return eachClass(groups, [5]int{}, func(signed [5]int) error {
		p.resting++
		if max(signed[0], signed[1], signed[2]) < p.replica.combines {
			return fmt.Errorf("first votes %v, and %v of replicas that are down, evidence %t: stuck with %v signed", up, gone, evidence, signed)
		}
		return nil
	})
}

// eachVotes calls f for all ways in which so many replicas can cast first votes; so many of them
// may have cast none.
func eachVotes(replicas, silent int, f func(votes) error) error {
	for one := 0; one <= replicas; one++ {
		for two := 0; one+two <= replicas; two++ {
			for null := 0; one+two+null <= replicas; null++ {
				none := replicas - one - two - null
				if none > silent {
					continue
				}
				if err := f(votes{uint8(none), uint8(one), uint8(two), uint8(null)}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// eachClass calls f with the number of signers of each statement, for every choice of what the
// replicas of each group signed, up to permutation within the group.
func eachClass(groups []group, signed [5]int, f func([5]int) error) error {
	if len(groups) == 0 {
		return f(signed)
	}
	g := groups[0]
	if g.size == 0 {
		return eachClass(groups[1:], signed, f)
	}
	for i, mask := range g.signed {
		rest := append([]group{{g.size - 1, g.signed[i:]}}, groups[1:]...)
		with := signed
		for s := range with {
			with[s] += int(mask >> s & 1)
		}
		if err := eachClass(rest, with, f); err != nil {
			return err
		}
	}
	return nil
}
