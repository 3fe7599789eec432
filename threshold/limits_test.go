package threshold

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func TestParamsLimits(t *testing.T) {
	for _, p := range []Params{{1, 1, 0}, {4, 3, 1}, {4, 4, 3}, {MaxReceivers, MaxReceivers, MaxReceivers - 1}} {
		require.NoError(t, p.Validate(), "%+v", p)
	}
	for _, p := range []Params{
		{0, 0, 0}, {-1, 1, 0}, {MaxReceivers + 1, 1, 0}, {4, 0, 0}, {4, 5, 1}, {4, 3, -1}, {4, 3, 3},
	} {
		require.Error(t, p.Validate(), "%+v", p)
		_, err := Deal(rand.Reader, p, nil)
		require.Error(t, err)
	}
	_, err := Deal(rand.Reader, defaultParams, make([]byte, MaxContext))
	require.NoError(t, err)
	_, err = Deal(rand.Reader, defaultParams, make([]byte, MaxContext+1))
	require.ErrorContains(t, err, "context")
}

func TestRandomnessThatFails(t *testing.T) {
	broken := errors.New("no entropy")
	_, err := Deal(iotest.ErrReader(broken), defaultParams, nil)
	require.ErrorIs(t, err, broken)
	_, err = Deal(bytes.NewReader(make([]byte, 100)), defaultParams, nil)
	require.Error(t, err)
	g := generate(t, defaultParams, 2)
	msg := []byte("m")
	sig, _, err := g.sharing.Combine(msg, g.sign(msg, 1, 2, 3, 4))
	require.NoError(t, err)
	item := BatchItem{Key: g.sharing.GroupKey(), Message: msg, Signature: sig}
	require.ErrorIs(t, VerifyBatch(iotest.ErrReader(broken), []BatchItem{item, item}), broken)
	require.NoError(t, VerifyBatch(nil, nil))
	require.NoError(t, VerifyBatch(nil, []BatchItem{item}))
	item.Key = nil
	require.ErrorIs(t, VerifyBatch(rand.Reader, []BatchItem{item, item}), ErrInvalidSignature)
	require.ErrorIs(t, VerifyBatch(nil, []BatchItem{item}), ErrInvalidSignature)
}

func TestIndicesOutOfRange(t *testing.T) {
	g := generate(t, defaultParams, 2)
	d := dealt(t, defaultParams)
	msg := []byte("m")
	for _, i := range []int{-1, 0, 7, 1 << 40} {
		require.Nil(t, g.sharing.ShareKey(i))
		p := PartialSignature{Index: i, Signature: g.shares[0].Sign(msg).Signature}
		require.ErrorIs(t, g.sharing.VerifyPartial(msg, p), ErrInvalidSignature)
		_, err := d.Part(i)
		require.Error(t, err)
		_, _, err = d.Commitment().Complete(i, nil)
		require.Error(t, err)
		require.Error(t, d.Commitment().VerifyRedeal(g.sharing, i))
	}
	_, err := partOf(t, d, 1).Point(MaxReceivers + 1)
	require.Error(t, err)
}

func TestEqual(t *testing.T) {
	g, h := generate(t, defaultParams, 2), generate(t, defaultParams, 2)
	require.True(t, g.sharing.Equal(g.sharing))
	require.False(t, g.sharing.Equal(h.sharing))
	require.False(t, g.sharing.Equal(nil))
	require.False(t, g.sharing.GroupKey().Equal(h.sharing.GroupKey()))
	require.False(t, g.sharing.GroupKey().Equal(nil))
	require.False(t, g.shares[0].Equal(g.shares[1]))
	require.False(t, g.shares[0].Equal(nil))
	d := dealt(t, defaultParams)
	require.True(t, d.Commitment().Equal(d.Commitment()))
	require.False(t, d.Commitment().Equal(dealt(t, defaultParams).Commitment()))
	require.False(t, partOf(t, d, 1).Equal(partOf(t, d, 2)))
}

func TestChainsOfGroupKeys(t *testing.T) {
	groups := []*testGroup{generate(t, defaultParams, 2), generate(t, defaultParams, 2), generate(t, defaultParams, 2)}
	link := func(from, to *testGroup) Link {
		msg := LinkMessage(from.sharing.GroupKey(), to.sharing.GroupKey())
		sig, _, err := from.sharing.Combine(msg, from.sign(msg, 1, 2, 3, 4))
		require.NoError(t, err)
		return Link{Next: to.sharing.GroupKey(), Signature: sig}
	}
	first, second := link(groups[0], groups[1]), link(groups[1], groups[2])
	back := link(groups[2], groups[0])
	trusted := groups[0].sharing.GroupKey()
	last, err := VerifyChain(trusted, []Link{first, second})
	require.NoError(t, err)
	require.True(t, last.Equal(groups[2].sharing.GroupKey()))
	last, err = VerifyChain(trusted, nil)
	require.NoError(t, err)
	require.True(t, last.Equal(trusted))
	for name, links := range map[string][]Link{
		"out of order":         {second, first},
		"one missing":          {second},
		"back to a given up":   {first, second, back},
		"without a key":        {{Signature: first.Signature}},
		"to itself":            {first, link(groups[1], groups[1])},
		"back within":          {first, second, link(groups[2], groups[1])},
		"signature of another": {{Next: first.Next, Signature: second.Signature}},
	} {
		_, err := VerifyChain(trusted, links)
		require.Error(t, err, name)
	}
	_, err = VerifyChain(trusted, make([]Link, MaxLinks+1))
	require.ErrorContains(t, err, "at most")
	_, err = VerifyChain(trusted, make([]Link, MaxLinks))
	require.ErrorContains(t, err, "link 0")
	_, err = VerifyChain(nil, nil)
	require.Error(t, err)
	_, err = Link{}.MarshalBinary()
	require.Error(t, err)
}
