package threshold

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// makeVectors computes the published vectors: key generation by two dealers for 3 of 4 receivers, and
// resharing to 4 of 6.
func makeVectors(t *testing.T) vectors {
	rng := deterministic()
	v := vectors{
		About: "Vectors of package threshold of Reseal: BLS threshold signatures on BLS12-381 (signatures in G1) " +
			"and certified bivariate dealings. Bytes are hexadecimal. Each item of bad must fail at its layer and pass those before it.",
		Scheme: map[string]string{"ciphersuite": Ciphersuite, "sharing": sharingScheme, "commitment": commitmentScheme},
	}
	firstParams, secondParams := Params{4, 3, 1}, Params{6, 4, 1}
	dealt := map[int]*Dealing{}
	for _, d := range []int{1, 3} {
		dealing, err := Deal(rng, firstParams, fmt.Appendf(nil, "vectors, epoch 0, dealer %d", d))
		require.NoError(t, err)
		dealt[d] = dealing
	}
	first := v.record(t, &v.KeyGeneration, dealt, nil)

	redealt := map[int]*Dealing{}
	for _, d := range []int{1, 2, 4} {
		dealing, err := Redeal(rng, secondParams, fmt.Appendf(nil, "vectors, epoch 1, dealer %d", d), first.shares[d-1])
		require.NoError(t, err)
		redealt[d] = dealing
	}
	second := v.record(t, &v.Resharing, redealt, first.sharing)

	for _, msg := range []string{"", "abc", "a longer message than one block of SHA-256 takes, to have that too"} {
		v.addSigning(t, first, []byte(msg))
	}
	v.addCombining(t, first)
	v.addCompletion(t, redealt[2])
	v.addLink(t, rng, second)
	v.addBad(t, first, second, redealt)
	return v
}

// record fills in a transition and returns its group.
func (v *vectors) record(t *testing.T, into *vectorTransition, dealings map[int]*Dealing, old *Sharing) *testGroup {
	tr, err := KeyGeneration(certified(t, commitments(dealings))...)
	if old != nil {
		tr, err = Resharing(old, certified(t, commitments(dealings))...)
	}
	require.NoError(t, err)
	g := receive(t, tr, dealings)
	p := tr.Sharing().Params()
	encoded, err := tr.Sharing().MarshalBinary()
	require.NoError(t, err)
	*into = vectorTransition{N: p.N, T: p.T, F: p.F, Sharing: hex.EncodeToString(encoded), GroupKey: tr.Sharing().GroupKey().String()}
	for _, dealer := range tr.Dealers() {
		c := dealings[dealer].Commitment()
		digest := c.Digest()
		d := vectorDealing{
			Dealer: dealer, Context: hex.EncodeToString(c.Context()),
			Commitment: hex.EncodeToString(c.encoded), Digest: hex.EncodeToString(digest[:]),
		}
		for i := range dealings[dealer].coefficients {
			d.Coefficients = append(d.Coefficients, hex.EncodeToString(dealings[dealer].coefficients[i].AppendBytes(nil)))
		}
		for j := 1; j <= p.N; j++ {
			d.Parts = append(d.Parts, hex.EncodeToString(partOf(t, dealings[dealer], j).SecretBytes()))
		}
		into.Dealings = append(into.Dealings, d)
	}
	for _, s := range g.shares {
		into.Shares = append(into.Shares, hex.EncodeToString(s.SecretBytes()))
	}
	return g
}

func (v *vectors) addSigning(t *testing.T, g *testGroup, msg []byte) {
	s := vectorSigning{Message: hex.EncodeToString(msg)}
	for _, share := range g.shares {
		s.Partials = append(s.Partials, share.Sign(msg).Signature.String())
	}
	sig, _, err := g.sharing.Combine(msg, g.sign(msg, 1, 2, 3))
	require.NoError(t, err)
	s.Signature = sig.String()
	v.Signing = append(v.Signing, s)
}

func (v *vectors) addCombining(t *testing.T, g *testGroup) {
	msg := []byte("combine")
	sig, _, err := g.sharing.Combine(msg, g.sign(msg, 1, 2, 3))
	require.NoError(t, err)
	add := func(name string, bad []int, ok bool, ps ...PartialSignature) {
		c := vectorCombining{Name: name, Message: hex.EncodeToString(msg), Bad: bad}
		if ok {
			c.Signature = sig.String()
		}
		for _, p := range ps {
			c.Partials = append(c.Partials, vectorPartial{p.Index, p.Signature.String()})
		}
		v.Combining = append(v.Combining, c)
	}
	s := g.sign(msg, 1, 2, 3, 4)
	other := g.sign([]byte("something else"), 1, 2, 3, 4)
	relabelled := PartialSignature{Index: 2, Signature: s[3].Signature}
	torsion := smallOrder(t)
	var point curve.G1
	require.NoError(t, s[1].Signature.decode(&point))
	shifted := curve.Add1(&point, &torsion)
	outside := PartialSignature{Index: 2, Signature: Signature(shifted.Compress())}

	add("the first three", nil, true, s[:3]...)
	add("in another order", nil, true, s[3], s[0], s[2])
	add("all four", nil, true, s...)
	add("a duplicate among them", nil, true, s[0], s[0], s[2], s[3])
	add("one on another message, replaced", []int{2}, true, s[0], other[1], s[2], s[3])
	add("two on another message", []int{1, 2}, false, other[0], other[1], s[2], s[3])
	add("another's under index 2, replaced", []int{2}, true, s[0], relabelled, s[2], s[3])
	add("a bad one and a good one under index 2", []int{2}, true, s[0], other[1], s[1], s[2])
	add("outside the subgroup, replaced", []int{2}, true, s[0], outside, s[2], s[3])
	add("index zero", []int{0}, false, PartialSignature{0, s[0].Signature}, s[1], other[2], s[3])
	v.Combining[len(v.Combining)-1].Bad = []int{0, 3}
	add("too few", nil, false, s[0], s[1])
	add("too few, one of them twice", nil, false, s[0], s[1], s[1])
}

func (v *vectors) addCompletion(t *testing.T, dealing *Dealing) {
	const receiver = 5
	var points []Point
	for _, from := range []int{6, 1, 3} {
		point, err := partOf(t, dealing, from).Point(receiver)
		require.NoError(t, err)
		points = append(points, point)
	}
	wrong := Point{From: points[1].From, To: receiver, value: new(curve.Fr)}
	wrong.value.Neg(points[1].value)
	part, _, err := dealing.Commitment().Complete(receiver, points[:2])
	require.NoError(t, err)
	add := func(name string, bad []int, ok bool, points ...Point) {
		c := vectorCompletion{Name: name, Dealer: 2, Receiver: receiver, Bad: bad}
		if ok {
			c.Part = hex.EncodeToString(part.SecretBytes())
		}
		for _, p := range points {
			c.Points = append(c.Points, hex.EncodeToString(p.SecretBytes()))
		}
		v.Completion = append(v.Completion, c)
	}
	add("two points", nil, true, points[0], points[1])
	add("one wrong, replaced", []int{1}, true, points[0], wrong, points[2])
	add("one wrong", []int{1}, false, points[0], wrong)
	add("one point twice", nil, false, points[0], points[0])
}

func (v *vectors) addLink(t *testing.T, rng io.Reader, g *testGroup) {
	dealing, err := Deal(rng, Params{1, 1, 0}, nil)
	require.NoError(t, err)
	tr, err := KeyGeneration(certified(t, map[int]*Commitment{1: dealing.Commitment()})...)
	require.NoError(t, err)
	old, next := g.sharing.GroupKey(), tr.Sharing().GroupKey()
	msg := LinkMessage(old, next)
	sig, _, err := g.sharing.Combine(msg, g.sign(msg, 1, 2, 3, 4))
	require.NoError(t, err)
	link, err := Link{Next: next, Signature: sig}.MarshalBinary()
	require.NoError(t, err)
	v.Link = vectorLink{old.String(), next.String(), hex.EncodeToString(msg), hex.EncodeToString(link)}
}

// addBad spoils one thing at a time.
func (v *vectors) addBad(t *testing.T, first, second *testGroup, redealt map[int]*Dealing) {
	add := func(kind, name, layer string, dealer int, b []byte) {
		v.Bad = append(v.Bad, vectorBad{Name: name, Kind: kind, Layer: layer, Hex: hex.EncodeToString(b), Dealer: dealer})
	}
	changed := func(b []byte, at int, value byte) []byte {
		b = bytes.Clone(b)
		if at < 0 {
			at += len(b)
		}
		b[at] = value
		return b
	}
	c := redealt[2].Commitment()
	points := len(c.encoded) - pointsLen(c.params)
	g2 := curve.Generator2()
	shares := append([]curve.G2(nil), c.shares...)
	shares[1] = curve.Add2(&shares[1], &g2)
	compressed := append(bytes.Clone(c.encoded[:points]), changed(c.encoded[points:], 0, c.encoded[points]|0x80)...)
	add("commitment", "of another scheme", "parse", 2, changed(c.encoded, 1, 'X'))
	add("commitment", "T above N", "parse", 2, changed(c.encoded, headerLen(commitmentScheme)-3, 7))
	add("commitment", "cut off", "parse", 2, c.encoded[:len(c.encoded)-1])
	add("commitment", "a byte too long", "parse", 2, append(bytes.Clone(c.encoded), 0))
	add("commitment", "point off the curve", "parse", 2, changed(c.encoded, points+95, c.encoded[points+95]^1))
	add("commitment", "compressed flag on a full point", "parse", 2, compressed)
	add("commitment", "point in G2 off the curve", "parse", 2, changed(c.encoded, -1, c.encoded[len(c.encoded)-1]^1))
	add("commitment", "other polynomial in G2", "verify", 2, newCommitment(c.params, c.context, c.matrix, shares).encoded)
	add("commitment", "of another dealer's share", "redeal", 2, redealt[1].Commitment().encoded)

	good := partOf(t, redealt[2], 3)
	encoded := good.SecretBytes()
	add("part", "cut off", "parse", 2, encoded[:len(encoded)-1])
	add("part", "tagged as a point", "parse", 2, changed(encoded, 0, pointTag))
	add("part", "index zero", "parse", 2, changed(encoded, 2, 0))
	add("part", "scalar not reduced", "parse", 2, changed(encoded, partHeaderLen, 0xff))
	add("part", "of another receiver", "part", 2, changed(encoded, 2, 4))
	add("part", "wrong row", "part", 2, changed(encoded, partHeaderLen+31, encoded[partHeaderLen+31]^1))
	add("part", "wrong column", "part", 2, changed(encoded, -1, encoded[len(encoded)-1]^1))
	add("part", "of another dealing", "part", 4, encoded)

	point, err := good.Point(1)
	require.NoError(t, err)
	add("point", "cut off", "parse", 0, point.SecretBytes()[:pointLen-1])
	add("point", "from zero", "parse", 0, changed(point.SecretBytes(), 2, 0))

	share := second.shares[4].SecretBytes()
	add("share", "cut off", "parse", 0, share[:shareLen-1])
	add("share", "zero", "parse", 0, append(bytes.Clone(share[:2]), make([]byte, 32)...))
	add("share", "scalar not reduced", "parse", 0, changed(share, 2, 0xff))
	add("share", "under another index", "share", 0, changed(share, 1, 6))
	add("share", "of the epoch before", "share", 0, first.shares[1].SecretBytes())

	sharing, err := second.sharing.MarshalBinary()
	require.NoError(t, err)
	infinity := append(bytes.Clone(sharing[:headerLen(sharingScheme)]), 0xc0)
	infinity = append(append(infinity, make([]byte, 95)...), sharing[len(infinity)+95:]...)
	add("sharing", "group key at infinity", "parse", 0, infinity)
	add("sharing", "cut off", "parse", 0, sharing[:len(sharing)-1])

	link := unhex(t, v.Link.Link)
	add("link", "cut off", "parse", 0, link[:linkLen-1])
	add("link", "wrong signature", "chain", 0, append(bytes.Clone(link[:PublicKeyLen]), unhex(t, v.Signing[0].Signature)...))
}
