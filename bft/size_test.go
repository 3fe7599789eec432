package bft

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// oracle derives the numbers anew, dumbly.
func TestSizeAgainstOracle(t *testing.T) {
	for f := 1; f <= 10; f++ {
		for c := 0; c <= 10; c++ {
			s := Size{f, c}
			n := f + f + f + c + c + 1
			require.Equal(t, n, s.N())
			q := 0
			for 2*q-n < f+1 || q > n-f-c { // two quorums share f+1; q are up
				q++
				if q > n {
					t.Fatal("no quorum")
				}
			}
			require.Equal(t, q, s.Quorum())
			require.Equal(t, n-s.FastAbsent(), s.FastQuorum())
			require.GreaterOrEqual(t, s.FastQuorum(), s.Quorum())
			require.Less(t, s.FastAbsent()+f, s.Quorum())
		}
	}
}

func TestSizeValidate(t *testing.T) {
	require.NoError(t, Size{1, 0}.Validate())
	require.NoError(t, Size{85, 0}.Validate())
	for _, s := range []Size{{0, 1}, {1, -1}, {86, 0}, {1, 127}, {1 << 40, 1}, {1, 1 << 62}} {
		require.Error(t, s.Validate())
	}
}

// split is what the correct replicas that are up first-voted: votes for two blocks, and against
// both. More blocks make it easier to rule them out.
type split struct{ a, b, nullify int }

// eachSplit calls f for every way in which so many correct replicas can vote.
func eachSplit(correct int, f func(split)) {
	for a := 0; a <= correct; a++ {
		for b := 0; b <= min(a, correct-a); b++ {
			f(split{a, b, correct - a - b})
		}
	}
}

// Whatever correct replicas vote and whatever each sees of the Byzantine ones, no correct replica
// rules out a block that is final by the fast path at another.
func TestRuledOutIsSound(t *testing.T) {
	eachSize(4, 5, func(s Size, r rules) {
		for byzantine := 0; byzantine <= s.F; byzantine++ {
			eachSplit(s.N()-byzantine, func(v split) {
				if v.a+byzantine < s.FastQuorum() {
					return // not final anywhere
				}
				for proven := 0; proven <= min(1, byzantine); proven++ {
					against := v.b + v.nullify + byzantine - proven
					require.Falsef(t, r.ruledOut(v.a+against, v.a, proven), "%+v %+v", s, v)
				}
			})
		}
	})
}

// Once the first votes of the correct replicas that are up have arrived, all of them vote for one
// block, or all to nullify: there are q of them, so the view is resolved whatever the Byzantine
// replicas tell each of them.
func TestEverySplitIsResolved(t *testing.T) {
	eachSize(4, 5, func(s Size, r rules) {
		require.Emptyf(t, stuckSplits(s, r), "%+v", s)
	})
}

// The fast path bears no more absent replicas than FastAbsent: with one more, some split sticks.
func TestFastAbsentIsTheLargest(t *testing.T) {
	eachSize(4, 5, func(s Size, _ rules) {
		require.NotEmptyf(t, stuckSplits(s, moreAbsent{rules{s}}), "%+v", s)
	})
}

// moreAbsent are the rules with p one larger.
type moreAbsent struct{ rules }

func (r moreAbsent) ruledOut(seen, count, proven int) bool {
	return r.rules.ruledOut(seen-1, count, proven)
}
func (r moreAbsent) supported(count, proven int) bool { return r.rules.supported(count+1, proven) }

// voting is the part of the rules that fallback votes follow.
type voting interface {
	ruledOut(seen, count, proven int) bool
	supported(count, proven int) bool
}

// stuckSplits returns the splits in which some correct replicas need not come together. Two blocks
// exist only when the leader is Byzantine, and then there is evidence.
func stuckSplits(s Size, r voting) (stuck []split) {
	up := s.N() - s.F - s.C // with more, more is seen
	for correct := up; correct <= s.N()-s.F; correct++ {
		eachSplit(correct, func(v split) {
			proven := 0
			if v.b > 0 {
				proven = 1
			}
			if !resolved(s, r, v, correct, proven) {
				stuck = append(stuck, v)
			}
		})
	}
	return stuck
}

// resolved reports whether all correct replicas vote to nullify, or all for one block, whatever
// they see of the Byzantine ones.
func resolved(s Size, r voting, v split, correct, proven int) bool {
	nullify, forA, forB := true, true, true
	eachView(s.F-proven, func(a, b, none int) {
		seen := correct + a + b + none
		outA, outB := r.ruledOut(seen, v.a+a, proven), r.ruledOut(seen, v.b+b, proven)
		nullify = nullify && outA && outB
		forA = forA && outB && r.supported(v.a+a, proven)
		forB = forB && outA && r.supported(v.b+b, proven)
	})
	return nullify || forA || forB
}

// eachView calls f for all that Byzantine replicas can show one correct replica.
func eachView(byzantine int, f func(a, b, none int)) {
	for a := 0; a <= byzantine; a++ {
		for b := 0; a+b <= byzantine; b++ {
			for none := 0; a+b+none <= byzantine; none++ {
				f(a, b, none)
			}
		}
	}
}

func eachSize(maxF, maxC int, f func(Size, rules)) {
	for i := 1; i <= maxF; i++ {
		for j := 0; j <= maxC; j++ {
			s := Size{i, j}
			f(s, rules{s})
		}
	}
}
