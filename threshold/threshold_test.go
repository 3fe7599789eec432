package threshold

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// defaultParams are those of the default cluster: f=1, c=1.
var defaultParams = Params{N: 6, T: 4, F: 1}

func TestLifeOfAGroupKey(t *testing.T) {
	g := generate(t, defaultParams, 3)
	msg := []byte("notarize")
	sig, bad, err := g.sharing.Combine(msg, g.sign(msg, 1, 2, 3, 4))
	require.NoError(t, err)
	require.Empty(t, bad)
	require.NoError(t, g.sharing.GroupKey().Verify(msg, sig))

	next := reshare(t, g, Params{N: 9, T: 6, F: 2}, []int{2, 3, 5, 6})
	require.True(t, g.sharing.GroupKey().Equal(next.sharing.GroupKey()))
	again, bad, err := next.sharing.Combine(msg, next.sign(msg, 9, 2, 4, 6, 1, 8))
	require.NoError(t, err)
	require.Empty(t, bad)
	require.Equal(t, sig, again, "the group's signature does not depend on the sharing")
}

func TestCombineNamesTheBad(t *testing.T) {
	g := generate(t, defaultParams, 2)
	msg := []byte("m")
	ps := g.sign(msg, 1, 2, 3, 4, 5)
	ps[1] = PartialSignature{Index: 2, Signature: g.shares[1].Sign([]byte("other")).Signature}
	sig, bad, err := g.sharing.Combine(msg, append(ps[:1:1], ps...))
	require.NoError(t, err)
	require.Equal(t, []int{2}, bad)
	require.NoError(t, g.sharing.GroupKey().Verify(msg, sig))

	_, bad, err = g.sharing.Combine(msg, ps[:4])
	require.ErrorIs(t, err, ErrTooFewPartials)
	require.Equal(t, []int{2}, bad)
}

func TestCombineUnverified(t *testing.T) {
	g := generate(t, defaultParams, 2)
	msg := []byte("m")
	sig, err := g.sharing.CombineUnverified(g.sign(msg, 2, 2, 5, 3, 6))
	require.NoError(t, err)
	require.NoError(t, g.sharing.GroupKey().Verify(msg, sig))
	bad := append(g.sign(msg, 1, 2, 3), g.sign([]byte("other"), 4)...)
	sig, err = g.sharing.CombineUnverified(bad)
	require.NoError(t, err)
	require.ErrorIs(t, g.sharing.GroupKey().Verify(msg, sig), ErrInvalidSignature)
	_, err = g.sharing.CombineUnverified(bad[:3])
	require.ErrorIs(t, err, ErrTooFewPartials)
	_, err = g.sharing.CombineUnverified(append(bad[:3:3], PartialSignature{Index: 4, Signature: Signature{0: 0xc0}}))
	require.ErrorIs(t, err, ErrTooFewPartials, "infinity is nobody's signature")
}

// Without so many different indices as are needed nobody is accused: nothing was looked at.
func TestCombineOfTooFewAccusesNobody(t *testing.T) {
	g := generate(t, defaultParams, 2)
	msg := []byte("m")
	three := append(g.sign(msg, 1, 1, 2), g.sign([]byte("other"), 3)...)
	_, bad, err := g.sharing.Combine(msg, three)
	require.ErrorIs(t, err, ErrTooFewPartials)
	require.Nil(t, bad)
	_, bad, err = g.sharing.Combine(msg, append(three, g.sign(msg, 4)...))
	require.ErrorIs(t, err, ErrTooFewPartials)
	require.Equal(t, []int{3}, bad)
}

// Points for another receiver, or from nobody, are not looked at: they complete nothing, and accuse
// nobody.
func TestPointsForAndFromOthersCompleteNothing(t *testing.T) {
	d := dealt(t, defaultParams)
	const victim = 6
	point := func(from, to int) Point {
		p, err := partOf(t, d, from).Point(to)
		require.NoError(t, err)
		return p
	}
	nobody := point(2, victim)
	for _, from := range []int{0, -1, defaultParams.N + 1, 1 << 16} {
		nobody.From = from
		_, bad, err := d.Commitment().Complete(victim, []Point{point(1, victim), point(2, victim-1), point(3, victim-1), nobody, {From: 4, To: victim}})
		var few *BadPointsError
		require.ErrorAs(t, err, &few)
		require.Empty(t, few.From)
		require.Empty(t, bad)
		require.Equal(t, defaultParams.F, few.Need)
	}
	for _, from := range []int{0, defaultParams.N + 1} { // with the value that the polynomial has there
		var value curve.Fr
		value.Eval(partOf(t, d, victim).row, defaultParams.F+1, 1, uint64(from))
		_, _, err := d.Commitment().Complete(victim, []Point{point(1, victim), {From: from, To: victim, value: &value}})
		require.ErrorIs(t, err, ErrInconsistent, "from %d", from)
	}
}

func TestVerifyBatch(t *testing.T) {
	g, h := generate(t, defaultParams, 2), generate(t, defaultParams, 2)
	var items []BatchItem
	for i, group := range []*testGroup{g, h, g, g, h} {
		msg := []byte{byte(i)}
		sig, _, err := group.sharing.Combine(msg, group.sign(msg, upTo(1, 4)...))
		require.NoError(t, err)
		items = append(items, BatchItem{Key: group.sharing.GroupKey(), Message: msg, Signature: sig})
	}
	require.NoError(t, VerifyBatch(rand.Reader, items))
	require.NoError(t, VerifyBatch(rand.Reader, items[2:4]))
	items[3].Message = []byte("other")
	items[1].Signature = Signature{}
	var bad *BadItemsError
	require.ErrorAs(t, VerifyBatch(rand.Reader, items), &bad)
	require.Equal(t, []int{1, 3}, bad.Items)
}

func TestCompleteAMissedPart(t *testing.T) {
	p := Params{N: 7, T: 5, F: 2}
	dealing, err := Deal(rand.Reader, p, nil)
	require.NoError(t, err)
	c := dealing.Commitment()
	want, err := dealing.Part(7)
	require.NoError(t, err)
	var points []Point
	for _, from := range []int{4, 1, 6, 2} {
		part, err := dealing.Part(from)
		require.NoError(t, err)
		point, err := part.Point(7)
		require.NoError(t, err)
		points = append(points, point)
	}
	part, bad, err := c.Complete(7, points[:3])
	require.NoError(t, err)
	require.Empty(t, bad)
	require.False(t, part.HasColumn())
	for k := range part.row {
		require.True(t, part.row[k].Equal(&want.row[k]))
	}
	points[1].value.SetSmall(7)
	_, bad, err = c.Complete(7, points[:3])
	require.ErrorIs(t, err, ErrInconsistent)
	require.Equal(t, []int{1}, bad)
	part, bad, err = c.Complete(7, points)
	require.NoError(t, err)
	require.Equal(t, []int{1}, bad)
	require.NoError(t, c.VerifyCompleted(part))
}

func TestEncodings(t *testing.T) {
	p := Params{N: 4, T: 3, F: 1}
	dealing, err := Deal(rand.Reader, p, []byte("context"))
	require.NoError(t, err)
	c := dealing.Commitment()
	encoded, err := c.MarshalBinary()
	require.NoError(t, err)
	parsed, err := ParseCommitment(encoded)
	require.NoError(t, err)
	require.Equal(t, c.Digest(), parsed.Digest())
	require.Equal(t, []byte("context"), parsed.Context())
	require.NoError(t, parsed.Verify())
	part, err := dealing.Part(2)
	require.NoError(t, err)
	require.Len(t, encoded, p.MaxCommitmentLen()-MaxContext+len("context"))
	require.Len(t, part.SecretBytes(), p.MaxPartLen())
	part2, err := ParsePart(part.SecretBytes())
	require.NoError(t, err)
	require.True(t, part.Equal(part2))
	require.NoError(t, parsed.VerifyPart(part2))
	point, err := part.Point(3)
	require.NoError(t, err)
	point2, err := ParsePoint(point.SecretBytes())
	require.NoError(t, err)
	require.True(t, point.value.Equal(point2.value))

	g := generate(t, p, 2)
	b, err := g.sharing.MarshalBinary()
	require.NoError(t, err)
	s2, err := ParseSharing(b)
	require.NoError(t, err)
	require.True(t, s2.Equal(g.sharing))
	share, err := ParseShare(g.shares[2].SecretBytes())
	require.NoError(t, err)
	require.True(t, share.Equal(g.shares[2]))
	require.NoError(t, s2.CheckShare(share))
	require.Error(t, generate(t, p, 2).sharing.CheckShare(share))
}

// Whatever parses is written again as the same bytes: nothing has two encodings, and none may be
// cut or go on.
func TestEveryEncodingHasOneForm(t *testing.T) {
	g := generate(t, Params{N: 4, T: 3, F: 1}, 2)
	d, err := Deal(rand.Reader, g.sharing.Params(), bytes.Repeat([]byte{7}, MaxContext))
	require.NoError(t, err)
	commitment, err := d.Commitment().MarshalBinary()
	require.NoError(t, err)
	sharing, err := g.sharing.MarshalBinary()
	require.NoError(t, err)
	link, err := Link{Next: g.sharing.GroupKey()}.MarshalBinary()
	require.NoError(t, err)
	part := partOf(t, d, 2)
	point, err := part.Point(3)
	require.NoError(t, err)
	type plain interface{ MarshalBinary() ([]byte, error) }
	written := func(b plain, err error) []byte {
		if err != nil {
			return nil
		}
		again, err := b.MarshalBinary()
		require.NoError(t, err)
		return again
	}
	type secret interface{ SecretBytes() []byte }
	secretly := func(s secret, err error) []byte {
		if err != nil {
			return nil
		}
		return s.SecretBytes()
	}
	for name, c := range map[string]struct {
		encoded []byte
		again   func([]byte) []byte // nil when it does not parse
	}{
		"commitment": {commitment, func(b []byte) []byte { x, err := ParseCommitment(b); return written(x, err) }},
		"sharing":    {sharing, func(b []byte) []byte { x, err := ParseSharing(b); return written(x, err) }},
		"link":       {link, func(b []byte) []byte { x, err := ParseLink(b); return written(x, err) }},
		"part":       {part.SecretBytes(), func(b []byte) []byte { x, err := ParsePart(b); return secretly(x, err) }},
		"point":      {point.SecretBytes(), func(b []byte) []byte { x, err := ParsePoint(b); return secretly(&x, err) }},
		"share":      {g.shares[0].SecretBytes(), func(b []byte) []byte { x, err := ParseShare(b); return secretly(x, err) }},
	} {
		require.Equal(t, c.encoded, c.again(c.encoded), name)
		require.Nil(t, c.again(nil), name)
		require.Nil(t, c.again(c.encoded[:len(c.encoded)-1]), "%s, cut", name)
		require.Nil(t, c.again(append(c.encoded[:len(c.encoded):len(c.encoded)], 0)), "%s, and more", name)
		for i := range min(60, len(c.encoded)) {
			for _, bit := range []byte{1, 0x80} {
				other := bytes.Clone(c.encoded)
				other[i] ^= bit
				if again := c.again(other); again != nil {
					require.Equal(t, other, again, "%s, byte %d", name, i)
				}
			}
		}
	}
	long := bytes.Clone(commitment)
	at := headerLen(commitmentScheme)
	binary.BigEndian.PutUint16(long[at:], MaxContext+1)
	long = slices.Insert(long, at+2, 7)
	_, err = ParseCommitment(long)
	require.Error(t, err, "a longer context")
}

func TestRotationOfTheGroupKey(t *testing.T) {
	old, next := generate(t, defaultParams, 2), generate(t, defaultParams, 2)
	msg := LinkMessage(old.sharing.GroupKey(), next.sharing.GroupKey())
	sig, _, err := old.sharing.Combine(msg, old.sign(msg, 1, 2, 3, 4))
	require.NoError(t, err)
	link := Link{Next: next.sharing.GroupKey(), Signature: sig}
	b, err := link.MarshalBinary()
	require.NoError(t, err)
	parsed, err := ParseLink(b)
	require.NoError(t, err)
	last, err := VerifyChain(old.sharing.GroupKey(), []Link{parsed})
	require.NoError(t, err)
	require.True(t, last.Equal(next.sharing.GroupKey()))
	_, err = VerifyChain(next.sharing.GroupKey(), []Link{parsed})
	require.Error(t, err)
}
