package guard

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/reseal-bft/reseal/bft"
)

var a, b = bft.Digest{1}, bft.Digest{2}

func vote(kind bft.VoteKind, view bft.View, block bft.Digest, first bool) bft.Vote {
	return bft.Vote{Statement: bft.Statement{Epoch: 1, View: view, Kind: kind, Block: block}, First: first}
}

func TestContradictionsAreRefused(t *testing.T) {
	first := func(d bft.Digest) bft.Vote { return vote(bft.Notarize, 5, d, true) }
	fallback := func(d bft.Digest) bft.Vote { return vote(bft.Notarize, 5, d, false) }
	finalize := func(d bft.Digest) bft.Vote { return vote(bft.Finalize, 5, d, false) }
	nullifyFirst, nullify := vote(bft.Nullify, 5, bft.Digest{}, true), vote(bft.Nullify, 5, bft.Digest{}, false)
	cases := []struct {
		name    string
		signed  []bft.Vote
		refused bft.Vote
	}{
		{"two first votes", []bft.Vote{first(a)}, first(b)},
		{"first notarize, then first nullify", []bft.Vote{first(a)}, nullifyFirst},
		{"first nullify, then first notarize", []bft.Vote{nullifyFirst}, first(a)},
		{"finalize after nullify", []bft.Vote{first(a), nullify}, finalize(a)},
		{"finalize after first nullify", []bft.Vote{nullifyFirst}, finalize(a)},
		{"finalize of another block", []bft.Vote{first(a)}, finalize(b)},
		{"finalize after a fallback vote", []bft.Vote{first(a), fallback(b)}, finalize(a)},
		{"finalize after a fallback vote for the same block", []bft.Vote{nullifyFirst, fallback(a)}, finalize(a)},
		{"nullify after finalize", []bft.Vote{first(a), finalize(a)}, nullify},
		{"fallback after finalize", []bft.Vote{first(a), finalize(a)}, fallback(b)},
		{"first vote after finalize", []bft.Vote{finalize(a)}, first(a)},
		{"two finalize votes", []bft.Vote{finalize(a)}, finalize(b)},
		{"another epoch", []bft.Vote{first(a)}, bft.Vote{Statement: bft.Statement{Epoch: 2, View: 6, Kind: bft.Nullify}}},
		{"below the floor", nil, vote(bft.Nullify, 2, bft.Digest{}, true)},
		{"nullify with a block", nil, vote(bft.Nullify, 5, a, true)},
		{"unknown kind", nil, vote(9, 5, a, false)},
		{"finalize as a first vote", []bft.Vote{first(a)}, vote(bft.Finalize, 5, a, true)},
		{"a block more than a view has fallback votes for", []bft.Vote{first(a), fallback(b), fallback(bft.Digest{3}), fallback(bft.Digest{4})}, fallback(bft.Digest{5})},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			g := New(3)
			for _, v := range c.signed {
				require.NoError(t, g.Check(v))
			}
			require.ErrorIs(t, g.Check(c.refused), ErrContradiction)
			for _, v := range c.signed {
				require.NoError(t, g.Check(v), "the same vote again")
			}

			restarted := New(5) // a vote at the floor binds, too
			require.NoError(t, restarted.Restore(c.signed))
			require.ErrorIs(t, restarted.Check(c.refused), ErrContradiction, "after a restart")
			require.Error(t, New(0).Restore(append(c.signed[:len(c.signed):len(c.signed)], c.refused, vote(9, 9, a, false))))
		})
	}
}

func TestWhatTheProtocolNeedsIsAllowed(t *testing.T) {
	for _, votes := range [][]bft.Vote{
		{vote(bft.Notarize, 5, a, true), vote(bft.Finalize, 5, a, false), vote(bft.Notarize, 5, a, true)},
		{vote(bft.Notarize, 5, a, true), vote(bft.Notarize, 5, b, false), vote(bft.Nullify, 5, bft.Digest{}, false)},
		{vote(bft.Nullify, 5, bft.Digest{}, true), vote(bft.Notarize, 5, a, false), vote(bft.Notarize, 5, b, false)},
		{vote(bft.Finalize, 5, a, false), vote(bft.Finalize, 4, b, false), vote(bft.Notarize, 6, b, true)},
	} {
		g := New(0)
		for _, v := range votes {
			require.NoError(t, g.Check(v))
		}
	}
}

// What was refused was not signed, so it binds nobody and is not kept.
func TestARefusalBindsNobody(t *testing.T) {
	g := New(3)
	for _, refused := range []bft.Vote{
		vote(bft.Nullify, 5, a, true), vote(9, 5, a, true), vote(bft.Finalize, 5, a, true), vote(bft.Notarize, 2, a, true),
	} {
		require.ErrorIs(t, g.Check(refused), ErrContradiction)
	}
	require.Empty(t, g.rows)
	require.NoError(t, g.Check(vote(bft.Notarize, 5, b, true)))
	require.ErrorIs(t, g.Check(vote(bft.Notarize, 5, a, true)), ErrContradiction)
	require.NoError(t, g.Check(vote(bft.Finalize, 5, b, false)))
}

func TestPruneForgetsAndRefuses(t *testing.T) {
	g := New(0)
	for v := bft.View(1); v <= 100; v++ {
		require.NoError(t, g.Check(vote(bft.Notarize, v, a, true)))
	}
	g.Prune(90)
	g.Prune(10)
	require.Len(t, g.rows, 11)
	require.ErrorIs(t, g.Check(vote(bft.Notarize, 89, a, true)), ErrContradiction)
	require.ErrorIs(t, g.Check(vote(bft.Notarize, 90, b, true)), ErrContradiction)
}

// Whatever is asked, in whatever order and across restarts, what was signed never contradicts
// itself. The check is dumb: it looks at all pairs.
func TestSignedVotesNeverContradict(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g, signed := New(0), []bft.Vote(nil)
		for range rapid.IntRange(1, 40).Draw(t, "votes") {
			v := vote(bft.VoteKind(rapid.IntRange(1, 3).Draw(t, "kind")), bft.View(rapid.IntRange(1, 2).Draw(t, "view")), bft.Digest{}, rapid.Bool().Draw(t, "first"))
			if v.Kind != bft.Nullify {
				v.Block = bft.Digest{byte(rapid.IntRange(1, 3).Draw(t, "block"))}
			}
			if rapid.IntRange(0, 9).Draw(t, "restart") == 0 {
				g = New(0)
				if err := g.Restore(signed); err != nil {
					t.Fatal(err)
				}
			}
			if g.Check(v) == nil {
				signed = append(signed, v)
			}
		}
		for _, v := range signed {
			for _, w := range signed {
				if v.View == w.View && contradict(v, w) {
					t.Fatalf("signed both %+v and %+v", v, w)
				}
			}
		}
	})
}

func contradict(v, w bft.Vote) bool {
	if v.Kind == bft.Finalize && w.Kind == bft.Finalize {
		return v.Block != w.Block
	}
	if v.Kind == bft.Finalize {
		return w.Kind != bft.Notarize || !w.First || w.Block != v.Block
	}
	return v.First && w.First && w.Kind != bft.Finalize && v.Statement != w.Statement
}
