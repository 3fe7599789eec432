package bft

import "fmt"

// MaxReplicas bounds n: indices of shares and bit sets are sized by it.
const MaxReplicas = 256

// Size is the one set of numbers from which every count of the protocol follows.
type Size struct {
	// F is the number of Byzantine replicas tolerated.
	F int
	// C is the number of further replicas that may be down at the same time: crashed, slow, or in
	// recovery.
	C int
}

// N is the number of replicas, 3f + 2c + 1 (SBFT, section II).
func (s Size) N() int { return 3*s.F + 2*s.C + 1 }

// Quorum is q = 2f + c + 1: the size of every certificate and the threshold of the group key. Two
// quorums share at least f + 1 replicas, and q correct replicas are up when f are Byzantine and c
// down.
func (s Size) Quorum() int { return 2*s.F + s.C + 1 }

// FastAbsent is p = c/2 + 1: the absent replicas that the fast path bears. It is the largest value
// for which the first votes of q replicas always leave at most one candidate (Kudzu's p; checked
// exhaustively in size_test.go), and the largest possible (Hydrangea, USENIX Security 2026: at most
// (c + 2)/2 for n = 3f + 2c + 1).
func (s Size) FastAbsent() int { return s.C/2 + 1 }

// FastQuorum is n - p: first notarize votes that make a block final at once.
func (s Size) FastQuorum() int { return s.N() - s.FastAbsent() }

// Validate reports a size that is out of bounds.
func (s Size) Validate() error {
	if s.F < 1 || s.C < 0 || s.F > MaxReplicas || s.C > MaxReplicas || s.N() > MaxReplicas {
		return fmt.Errorf("f=%d, c=%d: need f >= 1, c >= 0 and n = 3f+2c+1 <= %d", s.F, s.C, MaxReplicas)
	}
	return nil
}
