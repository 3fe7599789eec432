package threshold

import (
	"crypto/rand"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// TestCertifiedDealings is a handoff as a protocol runs it: dealings are acknowledged with partial
// signatures of the current epoch, T acknowledgements certify one, a receiver that was away and one that
// its dealer cheated complete their parts from others, and a dealing that too few could acknowledge is
// left out.
func TestCertifiedDealings(t *testing.T) {
	p := defaultParams
	g := generate(t, p, 2)
	const away, cheated = 6, 2
	dealings := map[int]*Dealing{}
	var chosen []*CertifiedDealing
	held := map[int]map[int]*Part{} // by dealer and receiver
	for dealer := 1; dealer <= 5; dealer++ {
		d, err := Redeal(rand.Reader, p, []byte{byte(dealer)}, g.shares[dealer-1])
		require.NoError(t, err)
		dealings[dealer], held[dealer] = d, map[int]*Part{}
		c := d.Commitment()
		var acknowledgements []PartialSignature
		for j := 1; j <= p.N; j++ {
			part := partOf(t, d, j)
			if dealer == 3 && j == cheated || dealer == 5 && j > 2 {
				part.row[0], part.row[1] = part.row[1], part.row[0]
			}
			if j == away || c.VerifyRedeal(g.sharing, dealer) != nil || c.VerifyPart(part) != nil {
				continue
			}
			held[dealer][j] = part
			acknowledgements = append(acknowledgements, g.shares[j-1].Sign(c.AcknowledgementMessage()))
		}
		certificate, bad, err := g.sharing.Combine(c.AcknowledgementMessage(), acknowledgements)
		require.Empty(t, bad)
		if dealer == 5 {
			require.ErrorIs(t, err, ErrTooFewPartials, "two receivers got a part")
			continue
		}
		require.NoError(t, err)
		of, err := c.Certify(Certification{Dealer: dealer, Context: []byte{byte(dealer)}, Certificate: certificate[:], Verify: verifier(g.sharing.GroupKey())})
		require.NoError(t, err)
		chosen = append(chosen, of)
	}

	tr, err := Resharing(g.sharing, chosen...)
	require.NoError(t, err)
	next := &testGroup{sharing: tr.Sharing()}
	for j := 1; j <= p.N; j++ {
		parts := map[int]*Part{}
		for _, d := range chosen {
			dealer := d.Dealer()
			parts[dealer] = held[dealer][j]
			if parts[dealer] == nil {
				parts[dealer] = completedFromAll(t, d.Commitment(), held[dealer], j)
			}
		}
		share, err := tr.Share(parts)
		require.NoError(t, err)
		next.shares = append(next.shares, share)
	}
	msg := []byte("the next epoch")
	sig, _, err := next.sharing.Combine(msg, next.sign(msg, away, cheated, 1, 5))
	require.NoError(t, err)
	require.NoError(t, g.sharing.GroupKey().Verify(msg, sig))
}

// verifier is what an importer passes in who has the group key of the sharing in force.
func verifier(key *PublicKey) func(message, certificate []byte) error {
	return func(message, certificate []byte) error {
		if len(certificate) != SignatureLen {
			return ErrInvalidSignature
		}
		return key.Verify(message, Signature(certificate))
	}
}

// completedFromAll asks everybody who holds a part, one of whom lies.
func completedFromAll(t *testing.T, c *Commitment, held map[int]*Part, receiver int) *Part {
	var points []Point
	for from := 1; from <= c.Params().N; from++ {
		part := held[from]
		if part == nil {
			continue
		}
		to := receiver
		if from == 1 {
			to = receiver%c.Params().N + 1 // a lie: what it holds for another
		}
		point, err := part.Point(to)
		require.NoError(t, err)
		point.To = receiver
		points = append(points, point)
	}
	part, bad, err := c.Complete(receiver, points)
	require.NoError(t, err)
	require.Equal(t, []int{1}, bad)
	_, err = part.Point(1)
	require.ErrorIs(t, err, ErrNoColumn)
	return part
}

// TestNothingIsADealingWithoutItsCertificate: what an adversary leaves out or exchanges.
func TestNothingIsADealingWithoutItsCertificate(t *testing.T) {
	p := defaultParams
	g := generate(t, p, 2)
	deal := func(context string) *Commitment {
		d, err := Redeal(rand.Reader, p, []byte(context), g.shares[0])
		require.NoError(t, err)
		return d.Commitment()
	}
	c, other := deal("epoch 7, dealer 1"), deal("epoch 7, dealer 1")
	sign := func(message []byte) []byte {
		s, _, err := g.sharing.Combine(message, g.sign(message, 1, 2, 3, 4))
		require.NoError(t, err)
		return s[:]
	}
	good := Certification{
		Dealer: 1, Context: []byte("epoch 7, dealer 1"), Certificate: sign(c.AcknowledgementMessage()), Verify: verifier(g.sharing.GroupKey()),
	}
	_, err := c.Certify(good)
	require.NoError(t, err)
	longer := good
	longer.Statement = func(commitment [32]byte, key *PublicKey) []byte {
		return append(append([]byte("a log's own statement about "), commitment[:]...), key.Bytes()...)
	}
	key, err := c.PublicKey()
	require.NoError(t, err)
	longer.Certificate = sign(longer.Statement(c.Digest(), key))
	_, err = c.Certify(longer)
	require.NoError(t, err)
	_, err = key.Certify(c.Digest(), longer)
	require.NoError(t, err)

	fixed := func(message []byte) func([32]byte, *PublicKey) []byte {
		return func([32]byte, *PublicKey) []byte { return message }
	}
	for name, change := range map[string]func(*Certification){
		"no certificate":        func(x *Certification) { x.Certificate = nil },
		"another's certificate": func(x *Certification) { x.Certificate = sign(other.AcknowledgementMessage()) },
		"a message that names another": func(x *Certification) {
			x.Statement, x.Certificate = fixed(other.AcknowledgementMessage()), sign(other.AcknowledgementMessage())
		},
		"a message that names none": func(x *Certification) { x.Statement, x.Certificate = fixed([]byte("dealt")), sign([]byte("dealt")) },
		"an empty message":          func(x *Certification) { x.Statement, x.Certificate = fixed(nil), sign(nil) },
		"too few": func(x *Certification) {
			s := g.shares[0].Sign(c.AcknowledgementMessage()).Signature
			x.Certificate = s[:]
		},
		"signed as something else, with the digest in it": func(x *Certification) {
			x.Certificate = sign(append([]byte("transfer with memo "), c.AcknowledgementMessage()...))
		},
		"another context": func(x *Certification) { x.Context = []byte("epoch 8, dealer 1") },
		"no context":      func(x *Certification) { x.Context = nil },
		"nobody asked":    func(x *Certification) { x.Verify = nil },
		"dealer 0":        func(x *Certification) { x.Dealer = 0 },
		"dealer beyond":   func(x *Certification) { x.Dealer = MaxReceivers + 1 },
	} {
		bad := good
		change(&bad)
		_, err := c.Certify(bad)
		require.Error(t, err, name)
	}
	var none *Commitment
	_, err = none.Certify(good)
	require.ErrorIs(t, err, errMissing)
	_, err = new(Commitment).Certify(good)
	require.ErrorIs(t, err, errMissing)
}

// TestRogueDealer: a dealer that deals last, and chooses the negative of what the others dealt plus
// a secret of its own, would hold the key alone. It has such commitments only in G2, where it does
// not know the secret: it cannot deal them, so no quorum certifies them, and uncertified keys are
// not added.
func TestRogueDealer(t *testing.T) {
	p := Params{N: 4, T: 3, F: 1}
	victim, err := Deal(rand.Reader, p, nil)
	require.NoError(t, err)
	own, err := Deal(rand.Reader, p, nil)
	require.NoError(t, err)
	rogue := own.Commitment()
	shares := append([]curve.G2(nil), rogue.shares...)
	shares[0] = curve.Sub2(&shares[0], &victim.Commitment().shares[0])
	matrix := append([]curve.G1(nil), rogue.matrix...)
	matrix[0] = curve.Sub1(&matrix[0], &victim.Commitment().matrix[0])
	rogue = newCommitment(p, nil, matrix, shares)
	require.NoError(t, rogue.Verify(), "consistent in both groups")
	for j := 1; j <= p.N; j++ {
		require.ErrorIs(t, rogue.VerifyPart(partOf(t, own, j)), ErrInconsistent, "nobody can be given a part of it")
	}
	refusing := func([]byte, []byte) error { return ErrInvalidSignature }
	_, err = rogue.Certify(Certification{Dealer: 2, Verify: refusing})
	require.ErrorIs(t, err, ErrInvalidSignature)
	key, err := rogue.PublicKey()
	require.NoError(t, err)
	statement := func(commitment [32]byte, key *PublicKey) []byte { return append(commitment[:], key.Bytes()...) }
	_, err = key.Certify(rogue.Digest(), Certification{Dealer: 2, Statement: statement, Verify: refusing})
	require.ErrorIs(t, err, ErrInvalidSignature)
	_, err = key.Certify(rogue.Digest(), Certification{Dealer: 2, Verify: func([]byte, []byte) error { return nil }})
	require.ErrorIs(t, err, errMissing, "the default statement does not name the key")
	victims, err := victim.Commitment().PublicKey()
	require.NoError(t, err)
	_, err = key.Certify(victim.Commitment().Digest(), Certification{
		Dealer: 2, Statement: func(commitment [32]byte, _ *PublicKey) []byte { return statement(commitment, victims) },
		Verify: func([]byte, []byte) error { return nil },
	})
	require.ErrorIs(t, err, ErrInconsistent, "a certificate about another key")
	_, err = SumPublicKeys(&CertifiedKey{}, nil)
	require.ErrorIs(t, err, errMissing)
}

// TestOneDealingInTwoNames: where the context does not name the dealer, one certified dealing could
// be counted twice, and F+1 dealings would all be one dealer's.
func TestOneDealingInTwoNames(t *testing.T) {
	p := Params{N: 4, T: 3, F: 1}
	deal := func() *Commitment {
		d, err := Deal(rand.Reader, p, []byte("key generation"))
		require.NoError(t, err)
		return d.Commitment()
	}
	c := deal()
	_, err := KeyGeneration(certified(t, map[int]*Commitment{1: c, 2: c})...)
	require.ErrorIs(t, err, ErrInconsistent)
	_, err = KeyGeneration(certified(t, map[int]*Commitment{1: c, 2: deal()})...)
	require.ErrorIs(t, err, ErrInconsistent)
	key, err := c.PublicKey()
	require.NoError(t, err)
	var keys []*CertifiedKey
	for dealer := 1; dealer <= 2; dealer++ {
		keys = append(keys, certifiedKey(t, dealer, c, key))
	}
	_, err = SumPublicKeys(keys...)
	require.ErrorContains(t, err, "one dealing")
}

// certifiedKey is certified as by a quorum that found nothing wrong.
func certifiedKey(t *testing.T, dealer int, c *Commitment, key *PublicKey) *CertifiedKey {
	out, err := key.Certify(c.Digest(), Certification{
		Dealer:    dealer,
		Statement: func(commitment [32]byte, key *PublicKey) []byte { return append(commitment[:], key.Bytes()...) },
		Verify:    func([]byte, []byte) error { return nil },
	})
	require.NoError(t, err)
	return out
}

// TestPartWithoutColumn: a dealer that leaves the columns out is not acknowledged, in any encoding.
func TestPartWithoutColumn(t *testing.T) {
	d := dealt(t, defaultParams)
	part := partOf(t, d, 2)
	column := part.column
	part.column = nil
	require.ErrorIs(t, d.Commitment().VerifyPart(part), ErrNoColumn)
	require.NoError(t, d.Commitment().VerifyCompleted(part))
	encoded := part.SecretBytes()
	_, err := ParsePart(encoded)
	require.Error(t, err)
	completed, err := ParseCompletedPart(encoded)
	require.NoError(t, err)
	require.ErrorIs(t, d.Commitment().VerifyPart(completed), ErrNoColumn)
	encoded[0] = partTag // the encoding of a dealer's part, with a column of no scalars
	_, err = ParsePart(encoded)
	require.ErrorIs(t, err, ErrNoColumn)
	part.column = column[:len(column)-1]
	require.ErrorIs(t, d.Commitment().VerifyPart(part), ErrInconsistent)
	part.column = column
	require.ErrorIs(t, d.Commitment().VerifyCompleted(part), ErrInconsistent)
}
