package bft_test

import (
	"runtime"
	"testing"
	"weak"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/reseal-bft/reseal/bft"
)

func TestResultsOfOneRequest(t *testing.T) {
	big := make([]byte, bft.MaxResult)
	given := [][]byte{make([]byte, bft.MaxResult+1), big, big, big, big, big, big, big, big, {1}, {}}
	r := bft.NewResults([]int{0, len(given), 0})
	for _, result := range given {
		r.Add(result)
	}
	r.Add([]byte("one too many"))
	require.Zero(t, r.Missing())
	kept := r.Of(1)
	require.Len(t, kept, len(given))
	require.Nil(t, kept[0], "larger than a result may be")
	for i := 1; i <= 8; i++ {
		require.Len(t, kept[i], bft.MaxResult)
	}
	require.Nil(t, kept[9], "larger than the results of a request may be")
	require.NotNil(t, kept[10])
	require.Empty(t, r.Of(0))
	require.Empty(t, r.Of(2))
}

// Requests with large results leave to each other one its share, wherever it stands in the block.
func TestGreedyRequestsLeaveTheOthersTheirShare(t *testing.T) {
	const requests, operations = 100, 8
	counts := make([]int, requests)
	for i := range counts {
		counts[i] = operations
	}
	r := bft.NewResults(counts)
	big := make([]byte, bft.MaxResult)
	for range requests - 1 {
		for range operations {
			r.Add(big)
		}
	}
	small := make([]byte, bft.MaxBlockResults/2/requests/operations)
	for range operations {
		require.GreaterOrEqual(t, r.Room(), len(small))
		r.Add(small)
	}
	for _, result := range r.Of(requests - 1) {
		require.Len(t, result, len(small))
	}
}

// Whatever an application adds, what is kept is within all limits, each result is whole or empty,
// and one that there was room for is whole.
func TestResultsAreWithinTheirLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		counts := rapid.SliceOfN(rapid.IntRange(0, 20), 0, 40).Draw(t, "operations")
		scale := rapid.IntRange(1, bft.MaxResult*5/4).Draw(t, "scale")
		backing := make([]byte, bft.MaxResult*5/4)
		r := bft.NewResults(counts)
		total := 0
		for i, n := range counts {
			request := 0
			for j := range n {
				size := rapid.IntRange(0, scale).Draw(t, "size")
				room := r.Room()
				r.Add(backing[:size])
				got := len(r.Of(i)[j])
				if size <= room && got != size || size > room && got != 0 {
					t.Fatalf("a result of %d bytes with room for %d was kept as %d", size, room, got)
				}
				request += got
			}
			if request > bft.MaxResults {
				t.Fatalf("request %d has results of %d bytes", i, request)
			}
			total += request
		}
		if total > bft.MaxBlockResults || r.Missing() != 0 || r.Room() != 0 {
			t.Fatalf("%d bytes, %d missing, room for %d", total, r.Missing(), r.Room())
		}
	})
}

// Results of one request are held for its client while those of others in its block are let go.
func TestResultsOfOneRequestKeepNoOthers(t *testing.T) {
	r := bft.NewResults([]int{1, 1})
	large := make([]byte, bft.MaxResult)
	there := weak.Make(&large[0])
	r.Add([]byte("small"))
	r.Add(large)
	small := r.Of(0)
	r, large = nil, nil
	runtime.GC()
	require.Nil(t, there.Value())
	require.Equal(t, [][]byte{[]byte("small")}, small)
}
