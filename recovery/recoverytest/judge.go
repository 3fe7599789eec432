package recoverytest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/threshold"
)

const scalarLen = 32

// loot is all that was ever taken.
type loot struct {
	shares      [][]byte
	parts       []takenPart
	points      []takenPoint
	keys        map[[32]byte]bool
	records     map[string][]byte // of disks; the name begins with the replica
	credentials []credential
	epochKeys   []ed25519.PrivateKey
}

// epochKey returns the private part of an epoch key, if it was taken.
func (l *loot) epochKey(public ed25519.PublicKey) ed25519.PrivateKey {
	for _, key := range l.epochKeys {
		if public.Equal(key.Public()) {
			return key
		}
	}
	return nil
}

func (l *loot) take(m *memory) {
	l.shares = append(l.shares, m.shares...)
	l.parts = append(l.parts, m.parts...)
	l.epochKeys = append(l.epochKeys, m.epochKeys...)
	for _, k := range m.keys {
		l.keys[k] = true
	}
}

// judge knows all that is public, and who was where when.
type judge struct {
	params      threshold.Params
	commitments map[bft.Digest]*threshold.Commitment
	sharings    map[bft.Epoch]*threshold.Sharing
	handoffs    map[bft.Epoch]governance.Handoff // that led to an epoch
	inside      map[bft.Epoch]map[bft.ReplicaID]bool
	// verified remembers the parts that are what they are said to be.
	verified map[string]bool
	unknowns map[bft.Digest]int
}

func newJudge(p threshold.Params) *judge {
	return &judge{
		params: p, commitments: map[bft.Digest]*threshold.Commitment{}, sharings: map[bft.Epoch]*threshold.Sharing{},
		handoffs: map[bft.Epoch]governance.Handoff{}, inside: map[bft.Epoch]map[bft.ReplicaID]bool{}, verified: map[string]bool{}, unknowns: map[bft.Digest]int{},
	}
}

// note takes down what is public in an epoch, of what a node holds.
func (j *judge) note(v *governance.View, m *memory) {
	j.handoffs[v.Epoch] = v.LastHandoff
	for _, c := range m.commitments {
		j.commitments[c.Digest()] = c
	}
	for _, s := range m.sharings {
		if s.Params() == j.params && j.held(v.Epoch) && j.sharings[v.Epoch] == nil && j.fits(v, s) {
			j.sharings[v.Epoch] = s
		}
	}
}

// fits: a sharing may be one of the epoch before, found in a node that waits, or of another group.
func (j *judge) fits(v *governance.View, s *threshold.Sharing) bool {
	for e, other := range j.sharings {
		if e != v.Epoch && other.Equal(s) {
			return false
		}
	}
	return hex.EncodeToString(s.GroupKey().Bytes()) == v.GroupKey
}

// worthless says what is wrong with the share that a node takes for its own: "" for nothing, or
// when it has none.
func (j *judge) worthless(v *governance.View, m *memory) string {
	for _, s := range m.sharings {
		if s.Params() == j.params && hex.EncodeToString(s.GroupKey().Bytes()) != v.GroupKey {
			return "a sharing of another group, which the intruder planted, and signs by it"
		}
	}
	return ""
}

// enter notes that the intruder was in a replica in an epoch.
func (j *judge) enter(epoch bft.Epoch, id bft.ReplicaID) {
	if j.inside[epoch] == nil {
		j.inside[epoch] = map[bft.ReplicaID]bool{}
	}
	j.inside[epoch][id] = true
}

// secrets tries to find the group secret, and shares of replicas that were clean.
func (j *judge) secrets(l *loot) []string {
	var findings []string
	j.openDisks(l, &findings)
	system := j.equations(l, &findings)
	if dealings := j.handoffs[1].Dealings; len(dealings) > 0 {
		target := Form{}
		for _, d := range dealings {
			target.Add(j.unknown(d.Commitment, 0, 0), big.NewInt(1))
		}
		if secret, ok := system.Value(target); ok {
			findings = append(findings, "the group secret is known: "+j.forge(secret))
		}
	}
	for epoch := range j.handoffs {
		for i := 1; i <= j.params.N; i++ {
			if _, ok := system.Value(j.share(epoch, i)); ok && !j.inside[epoch][bft.ReplicaID(i)] && j.held(epoch) {
				findings = append(findings, fmt.Sprintf("the share of replica %d in epoch %d is known, in which it was clean: a partial signature by it is valid", i, epoch))
			}
		}
	}
	slices.Sort(findings)
	return slices.Compact(findings)
}

func (j *judge) held(epoch bft.Epoch) bool { return len(j.handoffs[epoch].Dealings) > 0 }

// forge signs under the group key.
func (j *judge) forge(secret *big.Int) string {
	share, err := threshold.ParseShare(append([]byte{0, 1}, secret.FillBytes(make([]byte, scalarLen))...))
	if err != nil {
		return err.Error()
	}
	message := []byte("pay the intruder everything")
	signature := share.Sign(message).Signature
	for _, s := range j.sharings {
		if err := s.GroupKey().Verify(message, signature); err != nil {
			return "but " + err.Error()
		}
	}
	return "a signature was forged that verifies under the group key"
}

// unknown numbers the coefficient of x^k y^l of a dealing's polynomial.
func (j *judge) unknown(dealing bft.Digest, k, l int) int {
	base, ok := j.unknowns[dealing]
	if !ok {
		base = len(j.unknowns)
		j.unknowns[dealing] = base
	}
	return (base*j.params.T+k)*(j.params.F+1) + l
}

// share is the share of a replica in an epoch, in the coefficients of the dealings that made it.
func (j *judge) share(epoch bft.Epoch, index int) Form {
	form := Form{}
	dealings := j.handoffs[epoch].Dealings
	for _, d := range dealings {
		weight := big.NewInt(1)
		if epoch > 1 {
			for _, other := range dealings {
				if other.Dealer != d.Dealer {
					weight.Mul(weight, big.NewInt(int64(other.Dealer)))
					weight.Mul(weight, new(big.Int).ModInverse(big.NewInt(int64(other.Dealer)-int64(d.Dealer)), order))
				}
			}
		}
		for k := range j.params.T {
			form.Add(j.unknown(d.Commitment, k, 0), weight)
			weight = new(big.Int).Mul(weight, big.NewInt(int64(index)))
		}
	}
	return form
}

// equations are all that the loot says.
func (j *judge) equations(l *loot, findings *[]string) *System {
	system := &System{}
	know := func(form Form, value []byte) {
		if !system.Know(form, new(big.Int).SetBytes(value)) {
			*findings = append(*findings, "the kit is wrong: what was taken contradicts itself")
		}
	}
	for digest, c := range j.commitments { // a dealing deals its dealer's share
		s := cryptobyte.String(c.Context())
		var epoch, round uint64
		var dealer uint16
		if len(s) < 18 || !s.Skip(len(s)-18) || !s.ReadUint64(&epoch) || !s.ReadUint64(&round) || !s.ReadUint16(&dealer) || !j.held(bft.Epoch(epoch)) {
			continue
		}
		form := j.share(bft.Epoch(epoch), int(dealer))
		form.Add(j.unknown(digest, 0, 0), big.NewInt(-1))
		know(form, nil)
	}
	for _, raw := range l.shares {
		share, err := threshold.ParseShare(raw)
		if err != nil {
			continue
		}
		for epoch, s := range j.sharings {
			if s.CheckShare(share) == nil {
				know(j.share(epoch, share.Index()), raw[2:])
			}
		}
	}
	for _, p := range l.parts {
		if j.genuine(p) {
			j.knowPart(p, know)
		}
	}
	for _, p := range l.points {
		know(j.point(p), p.secret[5:])
	}
	return system
}

// point is phi(to, from) of a dealing.
func (j *judge) point(p takenPoint) Form {
	form, x := Form{}, big.NewInt(1)
	for k := range j.params.T {
		y := new(big.Int).Set(x)
		for l := range j.params.F + 1 {
			form.Add(j.unknown(p.dealing, k, l), y)
			y = new(big.Int).Mul(y, big.NewInt(int64(p.from)))
		}
		x = new(big.Int).Mul(x, big.NewInt(int64(p.to)))
	}
	return form
}

// genuine: the part is of its commitment.
func (j *judge) genuine(p takenPart) bool {
	digest := p.commitment.Digest()
	name := string(digest[:]) + string(p.secret)
	known, seen := j.verified[name]
	if seen {
		return known
	}
	part, err := threshold.ParsePart(p.secret)
	if err == nil {
		err = p.commitment.VerifyPart(part)
	} else if part, err = threshold.ParseCompletedPart(p.secret); err == nil {
		err = p.commitment.VerifyCompleted(part)
	}
	j.verified[name] = err == nil && p.commitment.Params() == j.params
	return j.verified[name]
}

// knowPart adds a row, phi(index, y), and a column, phi(x, index).
func (j *judge) knowPart(p takenPart, know func(Form, []byte)) {
	number := func(at int) int { return int(binary.BigEndian.Uint16(p.secret[at:])) }
	index, rows, columns := int64(number(1)), number(3), number(5)
	digest := p.commitment.Digest()
	scalars := slices.Collect(slices.Chunk(p.secret[7:], scalarLen))
	for l, value := range scalars[:rows] {
		form, power := Form{}, big.NewInt(1)
		for k := range j.params.T {
			form.Add(j.unknown(digest, k, l), power)
			power = new(big.Int).Mul(power, big.NewInt(index))
		}
		know(form, value)
	}
	for k, value := range scalars[rows : rows+columns] {
		form, power := Form{}, big.NewInt(1)
		for l := range j.params.F + 1 {
			form.Add(j.unknown(digest, k, l), power)
			power = new(big.Int).Mul(power, big.NewInt(index))
		}
		know(form, value)
	}
}

// openDisks tries every key on every part that a disk ever held.
func (j *judge) openDisks(l *loot, findings *[]string) {
	for name, value := range l.records {
		s := cryptobyte.String(value)
		var round uint64
		var raw cryptobyte.String
		_, place, _ := bytes.Cut([]byte(name), []byte{0})
		if !bytes.HasPrefix(place, []byte("part/")) || !s.ReadUint64(&round) || !s.ReadUint24LengthPrefixed(&raw) {
			continue
		}
		commitment, err := threshold.ParseCommitment(raw)
		if err != nil {
			continue
		}
		place, _, _ = bytes.Cut(place, []byte{0})
		place = binary.BigEndian.AppendUint64(place, round)
		for key := range l.keys {
			block, err := aes.NewCipher(key[:])
			if err != nil {
				continue
			}
			aead, err := cipher.NewGCMWithRandomNonce(block)
			if err != nil {
				continue
			}
			if plain, err := aead.Open(nil, nil, s, place); err == nil {
				l.parts = append(l.parts, takenPart{commitment, plain})
				j.commitments[commitment.Digest()] = commitment
				delete(l.records, name)
			}
		}
	}
}
