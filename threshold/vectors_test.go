package threshold

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// -rewrite makes testdata/vectors.json anew.
var rewrite = flag.Bool("rewrite", false, "write testdata/vectors.json instead of checking it")

const vectorsFile = "vectors.json"

// The published vectors. All bytes are hexadecimal; encodings are those of the package.
type (
	vectors struct {
		About         string
		Scheme        map[string]string
		KeyGeneration vectorTransition
		Signing       []vectorSigning
		Combining     []vectorCombining
		Resharing     vectorTransition
		Completion    []vectorCompletion
		Link          vectorLink
		Bad           []vectorBad
	}
	// vectorTransition is a set of dealings and the sharing that follows from them.
	vectorTransition struct {
		N, T, F  int
		Dealings []vectorDealing
		Sharing  string
		GroupKey string
		Shares   []string // of receivers 1, 2, ...
	}
	vectorDealing struct {
		Dealer       int
		Context      string
		Coefficients []string // of x^l y^k at l*(F+1)+k
		Commitment   string
		Digest       string
		Parts        []string // of receivers 1, 2, ...
	}
	vectorSigning struct {
		Message, Signature string
		Partials           []string // of receivers 1, 2, ...
	}
	vectorPartial struct {
		Index     int
		Signature string
	}
	vectorCombining struct {
		Name, Message string
		Partials      []vectorPartial
		Signature     string // empty: combining must fail
		Bad           []int  // indices named
	}
	vectorCompletion struct {
		Name             string
		Dealer, Receiver int // of the resharing
		Points           []string
		Part             string // empty: completing must fail
		Bad              []int  // senders named
	}
	vectorLink struct{ Old, Next, Message, Link string }
	// vectorBad must fail at the layer named, and pass all before it.
	vectorBad struct {
		Name, Kind, Layer, Hex string
		Dealer                 int // for layers redeal and part: whose dealing of the resharing
	}
)

func TestVectors(t *testing.T) {
	if *rewrite {
		encoded, err := json.MarshalIndent(makeVectors(t), "", " ")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile("testdata/"+vectorsFile, append(encoded, '\n'), 0o644))
	}
	var v vectors
	readJSON(t, vectorsFile, &v)
	require.Equal(t, makeVectors(t), v, "the code makes other vectors than it published")

	first := checkTransition(t, v.KeyGeneration, nil)
	second := checkTransition(t, v.Resharing, first.sharing)
	require.True(t, first.sharing.GroupKey().Equal(second.sharing.GroupKey()))
	for _, s := range v.Signing {
		checkSigning(t, first, s)
	}
	for _, c := range v.Combining {
		checkCombining(t, first.sharing, c)
	}
	for _, c := range v.Completion {
		checkCompletion(t, v.Resharing, c)
	}
	checkLink(t, v.Link)
	for _, b := range v.Bad {
		checkBad(t, first.sharing, second.sharing, v.Resharing, b)
	}
}

func checkTransition(t *testing.T, v vectorTransition, old *Sharing) *testGroup {
	public := map[int]*Commitment{}
	parts := make([]map[int]*Part, v.N)
	for _, d := range v.Dealings {
		c, err := ParseCommitment(unhex(t, d.Commitment))
		require.NoError(t, err)
		digest := c.Digest()
		require.Equal(t, d.Digest, hex.EncodeToString(digest[:]))
		require.Equal(t, d.Context, hex.EncodeToString(c.Context()))
		require.Equal(t, Params{v.N, v.T, v.F}, c.Params())
		for i, s := range d.Coefficients {
			var x curve.Fr
			require.NoError(t, x.SetBytes(unhex(t, s)))
			require.Equal(t, c.matrix[i], curve.Mult1(nil, &x))
		}
		for i, s := range d.Parts {
			part, err := ParsePart(unhex(t, s))
			require.NoError(t, err)
			require.NoError(t, c.VerifyPart(part))
			if parts[i] == nil {
				parts[i] = map[int]*Part{}
			}
			parts[i][d.Dealer] = part
		}
		public[d.Dealer] = c
	}
	tr, err := KeyGeneration(certified(t, public)...)
	if old != nil {
		tr, err = Resharing(old, certified(t, public)...)
	}
	require.NoError(t, err)
	encoded, err := tr.Sharing().MarshalBinary()
	require.NoError(t, err)
	require.Equal(t, v.Sharing, hex.EncodeToString(encoded))
	require.Equal(t, v.GroupKey, tr.Sharing().GroupKey().String())
	g := &testGroup{sharing: tr.Sharing()}
	for i, want := range v.Shares {
		share, err := tr.Share(parts[i])
		require.NoError(t, err)
		require.Equal(t, want, hex.EncodeToString(share.SecretBytes()))
		g.shares = append(g.shares, share)
	}
	return g
}

func checkSigning(t *testing.T, g *testGroup, v vectorSigning) {
	msg := unhex(t, v.Message)
	for i, want := range v.Partials {
		require.Equal(t, want, g.shares[i].Sign(msg).Signature.String())
	}
	require.NoError(t, g.sharing.GroupKey().Verify(msg, Signature(unhex(t, v.Signature))))
}

func checkCombining(t *testing.T, s *Sharing, v vectorCombining) {
	var ps []PartialSignature
	for _, p := range v.Partials {
		ps = append(ps, PartialSignature{p.Index, Signature(unhex(t, p.Signature))})
	}
	sig, bad, err := s.Combine(unhex(t, v.Message), ps)
	require.Equal(t, v.Bad, bad, v.Name)
	if v.Signature == "" {
		require.ErrorIs(t, err, ErrTooFewPartials, v.Name)
		return
	}
	require.NoError(t, err, v.Name)
	require.Equal(t, v.Signature, sig.String(), v.Name)
}

// dealing is the commitment of one dealer.
func (v vectorTransition) dealing(t *testing.T, dealer int) *Commitment {
	i := slices.IndexFunc(v.Dealings, func(d vectorDealing) bool { return d.Dealer == dealer })
	require.GreaterOrEqual(t, i, 0)
	c, err := ParseCommitment(unhex(t, v.Dealings[i].Commitment))
	require.NoError(t, err)
	return c
}

func checkCompletion(t *testing.T, dealings vectorTransition, v vectorCompletion) {
	var points []Point
	for _, s := range v.Points {
		p, err := ParsePoint(unhex(t, s))
		require.NoError(t, err)
		points = append(points, p)
	}
	part, bad, err := dealings.dealing(t, v.Dealer).Complete(v.Receiver, points)
	require.Equal(t, v.Bad, bad, v.Name)
	if v.Part == "" {
		require.ErrorIs(t, err, ErrInconsistent, v.Name)
		return
	}
	require.NoError(t, err, v.Name)
	require.Equal(t, v.Part, hex.EncodeToString(part.SecretBytes()), v.Name)
}

func checkLink(t *testing.T, v vectorLink) {
	old, err := ParsePublicKey(unhex(t, v.Old))
	require.NoError(t, err)
	link, err := ParseLink(unhex(t, v.Link))
	require.NoError(t, err)
	require.Equal(t, v.Message, hex.EncodeToString(LinkMessage(old, link.Next)))
	last, err := VerifyChain(old, []Link{link})
	require.NoError(t, err)
	require.Equal(t, v.Next, last.String())
}

// checkBad runs the layers in their order, and requires the first failure at the one named.
func checkBad(t *testing.T, old, next *Sharing, dealings vectorTransition, v vectorBad) {
	b := unhex(t, v.Hex)
	fail := func(layer string, err error) bool {
		require.Equal(t, layer == v.Layer, err != nil, "%s %s at %s: %v", v.Kind, v.Name, layer, err)
		return err != nil
	}
	switch v.Kind {
	case "commitment":
		c, err := ParseCommitment(b)
		if fail("parse", err) || fail("verify", c.Verify()) || fail("redeal", c.VerifyRedeal(old, v.Dealer)) {
			return
		}
	case "part":
		p, err := ParsePart(b)
		if fail("parse", err) || fail("part", dealings.dealing(t, v.Dealer).VerifyPart(p)) {
			return
		}
	case "point":
		_, err := ParsePoint(b)
		fail("parse", err)
		return
	case "share":
		s, err := ParseShare(b)
		if fail("parse", err) || fail("share", next.CheckShare(s)) {
			return
		}
	case "sharing":
		_, err := ParseSharing(b)
		fail("parse", err)
		return
	case "link":
		l, err := ParseLink(b)
		if fail("parse", err) {
			return
		}
		_, err = VerifyChain(next.GroupKey(), []Link{l})
		if fail("chain", err) {
			return
		}
	}
	t.Errorf("%s %s passes every layer", v.Kind, v.Name)
}

// deterministic is the randomness of the vectors.
func deterministic() *rand.ChaCha8 {
	return rand.NewChaCha8([32]byte([]byte("reseal threshold vectors, number")))
}
