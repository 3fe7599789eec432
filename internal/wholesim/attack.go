package wholesim

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
)

// Adversaries are the ways in which replicas are Byzantine. A Byzantine replica runs a real node;
// the attack sits between it and the network, has its keys, and alters what goes out.
var Adversaries = []string{
	"withhold",   // keeps finalize votes back, and other votes and blocks from some
	"equivocate", // signs two blocks for a view, one for each half
	"show-one",   // shows a block to one replica, which then loses its power
	"junk",       // votes and certificates that do not verify, frames that do not parse
	"ahead",      // votes for views and epochs to come
	"relay",      // carries messages over a partition, to some
	"lie",        // false answers in state transfer
	"drip",       // answers as late as possible, a byte at a time
	"dealer",     // false and missing parts, commitments, points and acknowledgements
	"lapse",      // does not reboot when it is due
}

// attack is what a Byzantine replica does.
type attack struct {
	c     *cluster
	m     *machine
	kinds []string

	mu      sync.Mutex
	rng     *rand.Rand
	keys    []ed25519.PrivateKey // the last that the replica sealed
	twins   map[bft.Digest]*bft.Block
	victims map[bft.View]bft.ReplicaID
	view    bft.View
	epoch   bft.Epoch
}

func newAttack(c *cluster, m *machine, kinds []string) *attack {
	return &attack{
		c: c, m: m, kinds: kinds, rng: rand.New(rand.NewPCG(c.seed, 50+uint64(m.id))),
		twins: make(map[bft.Digest]*bft.Block), victims: make(map[bft.View]bft.ReplicaID),
	}
}

// does reports whether the attack does something of a kind now: each comes and goes.
func (a *attack) does(kind string) bool {
	i := slices.Index(a.kinds, kind)
	period := 20 * time.Duration(a.c.profile.timeouts.View)
	return i >= 0 && (int(time.Since(a.c.started)/period)+i)%4 != 0
}

func (a *attack) chance(percent int) bool { return a.rng.IntN(100) < percent }

// learn takes the keys out of a secret that the replica seals.
func (a *attack) learn(secret []byte) {
	s := cryptobyte.String(secret)
	var version uint8
	var share, epochSeed, nextSeed cryptobyte.String
	if !s.ReadUint8(&version) || !s.ReadUint8LengthPrefixed(&share) || !s.ReadUint8LengthPrefixed(&epochSeed) || !s.ReadUint8LengthPrefixed(&nextSeed) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, seed := range [][]byte{epochSeed, nextSeed} {
		if len(seed) != ed25519.SeedSize {
			continue
		}
		key := ed25519.NewKeyFromSeed(slices.Clone(seed))
		if slices.ContainsFunc(a.keys, func(k ed25519.PrivateKey) bool { return k.Equal(key) }) {
			continue
		}
		if a.keys = append(a.keys, key); len(a.keys) > 3 {
			a.keys = a.keys[1:]
		}
	}
}

// sending makes of a frame what the replica sends to a peer.
func (a *attack) sending(to bft.ReplicaID, frame []byte) [][]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := [][]byte{frame}
	message, err := bft.ParseMessage(frame)
	if err != nil {
		return out // a client's request, handed on
	}
	switch x := message.(type) {
	case *bft.Block:
		out = a.block(to, x, frame)
	case bft.Vote:
		a.view, a.epoch = max(a.view, x.View), x.Epoch
		if a.does("withhold") && (x.Kind == bft.Finalize || (uint64(x.View)/8+uint64(to))%3 == 0) {
			out = nil
		}
		if a.does("ahead") {
			for range 3 {
				ahead := x
				ahead.View += bft.View(1 + a.rng.IntN(70))
				if a.chance(10) {
					ahead.Epoch += bft.Epoch(1 + a.rng.IntN(3))
				}
				ahead.Kind = bft.VoteKind(1 + a.rng.IntN(3))
				if ahead.Kind == bft.Nullify {
					ahead.Block = bft.Digest{}
				}
				out = append(out, bft.MarshalMessage(ahead))
			}
		}
	}
	if a.does("junk") && a.chance(30) {
		out = append(out, a.junk())
	}
	return out
}

// block alters what the replica proposes.
func (a *attack) block(to bft.ReplicaID, b *bft.Block, frame []byte) [][]byte {
	if b.Proposer != a.m.id {
		return [][]byte{frame}
	}
	a.view, a.epoch = max(a.view, b.View), b.Epoch
	switch {
	case a.does("show-one"):
		victim, chosen := a.victims[b.View]
		if !chosen {
			clear(a.victims)
			victim = bft.ReplicaID(a.rng.IntN(len(a.c.machines)) + 1)
			a.victims[b.View] = victim
			if m := a.c.machine(victim); m.correct() && a.c.chaotic.Load() && a.chance(4) {
				time.AfterFunc(time.Duration(a.rng.Int64N(int64(20*time.Millisecond))), func() {
					a.c.note(m, "the power goes after replica %d has shown it a block", a.m.id)
					m.kill(nil, 0, a.c.pick(time.Second, 5*time.Second))
				})
			}
		}
		if to != victim {
			return nil
		}
	case a.does("equivocate"):
		if (int(to)+int(b.View))%2 == 0 {
			if twin := a.twin(b); twin != nil {
				return [][]byte{bft.MarshalMessage(twin)}
			}
		}
	case a.does("withhold") && (uint64(b.View)/4+uint64(to))%3 == 0:
		return nil
	}
	return [][]byte{frame}
}

// twin signs another block for the same view.
func (a *attack) twin(b *bft.Block) *bft.Block {
	digest := b.Digest()
	if t, ok := a.twins[digest]; ok {
		return t
	}
	if len(a.twins) > 100 {
		clear(a.twins)
	}
	var twin *bft.Block
	for _, key := range a.keys {
		if !ed25519.Verify(key.Public().(ed25519.PublicKey), bft.ProposalBytes(a.c.net.cluster, digest), b.Signature) {
			continue
		}
		twin = &bft.Block{Header: b.Header, Payload: b.Payload}
		twin.Time++
		twin.Signature = ed25519.Sign(key, bft.ProposalBytes(a.c.net.cluster, twin.Digest()))
	}
	a.twins[digest] = twin
	return twin
}

// junk makes a frame that no correct replica would send.
func (a *attack) junk() []byte {
	statement := bft.Statement{Epoch: a.epoch, View: a.view + bft.View(a.rng.IntN(3)), Kind: bft.VoteKind(1 + a.rng.IntN(3))}
	if statement.Kind != bft.Nullify {
		statement.Block = bft.Digest(a.bytes(32))
	}
	switch a.rng.IntN(5) {
	case 0:
		return bft.MarshalMessage(bft.Certificate{Statement: statement, Signature: a.bytes(48)})
	case 1:
		return a.bytes(1 + a.rng.IntN(300))
	case 2:
		return bft.MarshalMessage(bft.Status{Epoch: a.epoch, View: statement.View, FinalHeight: bft.Height(a.rng.Uint64()), WantFinality: true})
	}
	return bft.MarshalMessage(bft.Vote{Statement: statement, First: statement.Kind != bft.Finalize && a.chance(50), Partial: a.bytes(48)})
}

func (a *attack) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(a.rng.Uint32())
	}
	return b
}

// receiving hears what a peer sends; it reports whether the replica does too.
func (a *attack) receiving(from transport.Sender, frame []byte) bool {
	a.mu.Lock()
	relays := a.does("relay") && len(frame) > 0 && a.chance(50)
	to := bft.ReplicaID(a.rng.IntN(len(a.c.machines)) + 1)
	a.mu.Unlock()
	if relays && to != from.ID && to != a.m.id {
		// Votes are attributed by channel: only blocks, headers and certificates are worth it.
		if message, err := bft.ParseMessage(frame); err == nil {
			if _, vote := message.(bft.Vote); !vote {
				if _, status := message.(bft.Status); !status {
					if end, _, _ := a.c.net.reach(arrow{0, a.m.id}); end != nil {
						end.postRaw(to, frame)
					}
				}
			}
		}
	}
	return true
}

// sizedPart is an answer of a handoff: a commitment behind its length, and a secret part.
func alterPart(a *attack, answer []byte) []byte {
	s := cryptobyte.String(answer)
	var commitment cryptobyte.String
	if !s.ReadUint24LengthPrefixed(&commitment) || len(s) < 8 {
		return answer
	}
	part := slices.Clone([]byte(s))
	switch a.rng.IntN(4) {
	case 0: // no columns
		columns := int(binary.BigEndian.Uint16(part[5:]))
		if 32*columns < len(part)-7 {
			part = part[:len(part)-32*columns]
			part[5], part[6] = 0, 0
		}
	case 1: // a wrong value
		part[len(part)-1] ^= 1
	case 2: // another commitment
		commitment = slices.Clone(commitment)
		commitment[len(commitment)-1] ^= 1
	case 3:
		part = part[:len(part)/2]
	}
	var b cryptobyte.Builder
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(commitment) })
	b.AddBytes(part)
	return b.BytesOrPanic()
}

var errByzantine = fmt.Errorf("no")
