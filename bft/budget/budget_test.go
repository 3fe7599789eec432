package budget

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

var sizes = []bft.Size{{F: 1}, {F: 1, C: 1}, {F: 2, C: 1}, {F: 3, C: 3}, {F: 10}, {F: 33, C: 10}, {F: 85}}

// The lines of a table come to no more than the limit, whatever it is, and to nearly all of it.
func TestTheSumIsTheLimit(t *testing.T) {
	for _, size := range sizes {
		least := Least(size)
		for _, limit := range []int64{least, least + 1, least + 1<<20 - 1, 2 * least, 8 << 30, 1 << 40} {
			table, err := Of(limit, size)
			require.NoError(t, err)
			var sum int64
			for _, item := range table.Items() {
				require.Positive(t, item.Bytes, item.Name)
				sum += item.Bytes * int64(item.Of)
			}
			require.LessOrEqual(t, sum, limit)
			require.Greater(t, sum, limit-limit/headroom-1<<12, "n = %d", size.N())
			require.Equal(t, limit, table.InGo()+process+Log+table.State/4)
			for _, s := range new(Table).shares(size) {
				bytes := int64(0)
				for _, item := range table.Items() {
					if item.Name == s.name {
						bytes = item.Bytes
					}
				}
				require.GreaterOrEqual(t, bytes, s.least, s.name)
			}
		}
	}
}

// A limit that is too small is refused, and the message says what it takes.
func TestTooSmallALimitIsRefused(t *testing.T) {
	for _, size := range sizes {
		_, err := Of(Least(size)-1, size)
		require.ErrorContains(t, err, "takes at least")
		_, err = Of(Least(size), size)
		require.NoError(t, err)
		_, err = Of(0, size)
		require.NoError(t, err, "no limit")
	}
	_, err := Of(300<<20, bft.Size{F: 1})
	require.ErrorContains(t, err, "a memory limit of 300 MiB is too small")
}

// The default limit is enough for clusters of usual sizes.
func TestTheDefaultIsEnough(t *testing.T) {
	for _, size := range []bft.Size{{F: 1}, {F: 1, C: 1}, {F: 2}, {F: 2, C: 2}, {F: 3}} {
		require.LessOrEqual(t, Least(size), int64(Default), "n = %d", size.N())
	}
}
