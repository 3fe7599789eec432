package recovery

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/recovery/internal/plant"
)

// The log names the keys of others, and a replica that is behind has an old log: whoever was in the
// others since, one after the other, has the keys that it names. So what no certificate proves
// counts only when the identity keys of enough others have vouched for it a moment ago: that the
// group is in a later epoch (f + 1), that it has another group key (f + 1), and that an epoch is
// not over yet, in which secrets are given to others and, in epoch 0, its certificates count (q).

// methodEpoch tells anybody the epoch that a replica is in, the block that it builds on, and the
// group key.
const methodEpoch = "reseal/epoch"

// word is what a peer said of the group, when it was asked and when it answered, and the key for
// which it vouched then.
type word struct {
	term      transport.Term
	groupKey  string // the encoding; empty in epoch 0
	key       ed25519.PublicKey
	asked, at time.Time
}

func (n *Node) serveEpoch(context.Context, *transport.Sender, []byte) ([]byte, error) {
	m := n.state.Membership()
	return word{term: termOf(m), groupKey: string(m.GroupKey)}.marshal(), nil
}

func (w word) marshal() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(w.term.Epoch))
	return append(append(b, w.term.Base[:]...), w.groupKey...)
}

func parseWord(answer []byte) (w word, ok bool) {
	s := cryptobyte.String(answer)
	var epoch uint64
	// It is kept of each peer, so it is no larger than it has to be.
	ok = s.ReadUint64(&epoch) && s.CopyBytes(w.term.Base[:]) && len(s) <= governance.PublicKeySize
	w.term.Epoch, w.groupKey = bft.Epoch(epoch), string(s)
	return w, ok
}

// silence is how long no block is executed before the others are asked for their epoch: idle
// leaders make blocks more often.
const silence = time.Second

// aheadPatience is how long one is waited for: its device may be slow, and others ask it too.
const aheadPatience = 10 * time.Second

// vouchedFor is how long the word of a peer counts: longer than it takes to ask again.
const vouchedFor = 2 * aheadPatience

// presentFor is how long a peer's words count where a secret is given, and presentForTPM where
// replicas have TPMs, which may take seconds to sign two of them.
const (
	presentFor    = 5 * time.Second
	presentForTPM = 10 * time.Second
)

// soon is the pause between two answers that are waited for: by a replica in epoch 0, which admits
// nobody before, and by who is to be given a secret.
const soon = 50 * time.Millisecond

// askedRest is how long a peer is not asked again, in multiples of what the answer took: where all
// are slow, and so hear nothing of each other, asking must not make them slower.
const askedRest = 4

// listenAhead asks a peer for its word in epoch 0, while nothing comes in, while the others are
// ahead, and while somebody waits for it. This replica may have missed that its key is over, and
// that theirs are; it then certifies, for the epoch that f + 1 others name, a key under which it may
// fetch the log, and takes the keys for which they vouch.
func (n *Node) listenAhead(ctx context.Context, peer bft.ReplicaID) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-n.words.wanted():
		case <-ctx.Done():
			return
		}
		m, asked := n.state.Membership(), time.Now()
		if n.words.due(peer, m) || m.Epoch > 0 && (time.Since(n.began)-time.Duration(n.moved.Load()) >= silence || n.words.term(m).Epoch > m.Epoch) {
			n.ask(ctx, peer)
		}
		m = n.state.Membership()
		if key := n.words.groupKey(m); m.Epoch > 0 && key != "" && key != string(m.GroupKey) {
			n.fail(fmt.Errorf("the state on disk names another group key than %d others, %s...: it was tampered with, or is another cluster's: move the store directory away "+
				"(not the .mark file beside it) and start again; the replica then fetches the state from the others", m.Size.F+1, hex.EncodeToString([]byte(key)[:min(len(key), 8)])))
			return
		}
		// What others say is all that a replica hears of them when their keys are all new to it.
		if n.words.term(m).Epoch > m.Epoch {
			n.replica.Load().Behind(peer)
		}
		pause := max(silence/2, min(askedRest*time.Since(asked), aheadPatience/2))
		if n.words.due(peer, m) {
			pause = max(soon, min(time.Since(asked), aheadPatience/2))
		}
		timer.Reset(pause)
	}
}

func (n *Node) ask(ctx context.Context, peer bft.ReplicaID) {
	ctx, cancel := context.WithTimeout(ctx, aheadPatience)
	defer cancel()
	asked := time.Now()
	answer, key, err := n.transport.CallVouched(ctx, peer, methodEpoch, nil)
	if w, ok := parseWord(answer); err == nil && ok {
		w.key, w.asked = key, asked
		n.words.hear(peer, w)
		n.wake()
	}
}

// present waits until a quorum, this replica included, says that no epoch after the given one has
// begun, all at one moment, which lies after the call. At that moment f of them lie at most; and when
// a later epoch has signed, f + c correct ones at most do not know it: one too few. Whoever calls under
// a key had it before that moment, too: so he had it in this epoch.
func (n *Node) present(ctx context.Context, last bft.Epoch) error {
	defer n.words.await()()
	since := time.Now()
	for {
		news, m := n.words.news(), n.state.Membership()
		count := n.words.together(m, last, since)
		switch {
		case m.Epoch > last:
			return fmt.Errorf("epoch %d is over", last)
		case count+1 >= m.Size.Quorum(), plant.Bug("nobody-vouches"), plant.Bug("few-vouch") && count >= m.Size.F:
			return nil
		}
		select {
		case <-news:
		case <-n.done:
			return errors.New("this replica stops")
		case <-ctx.Done():
			return fmt.Errorf("no quorum says that epoch %d is not over: %w", last, ctx.Err())
		}
	}
}

// words are what each peer said last. Those count that are younger than vouchedFor. Safe for
// concurrent use.
type words struct {
	mu      sync.Mutex
	said    map[bft.ReplicaID]word
	recent  time.Duration              // presentFor, or presentForTPM
	spells  map[bft.ReplicaID][]spoken // the recent ones, oldest first
	heard   chan struct{}              // closed, and made anew, when another word comes
	wants   chan struct{}              // likewise, when somebody begins to wait
	waiting int
}

// spoken is that a peer has named its epoch between two moments.
type spoken struct {
	epoch     bft.Epoch
	asked, at time.Time
}

func newWords(haveTPM bool) *words {
	recent := presentFor
	if haveTPM {
		recent = presentForTPM
	}
	return &words{recent: recent, said: make(map[bft.ReplicaID]word), spells: make(map[bft.ReplicaID][]spoken), heard: make(chan struct{}), wants: make(chan struct{})}
}

// hear takes note of what a peer says: the last counts.
func (s *words) hear(from bft.ReplicaID, w word) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.at = time.Now()
	s.said[from] = w
	old := func(x spoken) bool { return w.at.Sub(x.asked) >= s.recent }
	s.spells[from] = append(slices.DeleteFunc(s.spells[from], old), spoken{w.term.Epoch, w.asked, w.at})
	close(s.heard)
	s.heard = make(chan struct{})
}

// news is closed when another word comes.
func (s *words) news() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard
}

// await says that words are waited for, until done.
func (s *words) await() (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting++; s.waiting == 1 {
		close(s.wants)
		s.wants = make(chan struct{})
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.waiting--
	}
}

// wanted is closed when words begin to be waited for.
func (s *words) wanted() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wants
}

// together returns how many members have said, at one moment not before since, that no epoch after
// the given one has begun. A word alone is of no moment that others' words could be of too: it lies
// between question and answer. Two of a member, and none against it between them, are of all that lie
// between the first answer and the second question; of an intruder who was not there meanwhile, they
// are if he went away, was elsewhere, and came back, within presentFor or presentForTPM.
func (s *words) together(m *replica.Membership, last bft.Epoch, since time.Time) (most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	type spell struct{ from, to time.Time }
	var spells []spell
	for _, member := range m.Members {
		said := s.spells[member.ID]
		fresh := slices.IndexFunc(said, func(x spoken) bool { return time.Since(x.asked) < s.recent })
		if fresh < 0 || slices.ContainsFunc(said[fresh:], func(x spoken) bool { return x.epoch > last }) {
			continue
		}
		x := spell{said[fresh].at, said[len(said)-1].asked}
		if plant.Bug("words-in-turn") {
			x = spell{since, time.Now()}
		}
		spells = append(spells, x)
	}
	for _, x := range spells {
		moment := x.from
		if moment.Before(since) {
			moment = since
		}
		count := 0
		for _, y := range spells {
			if !y.from.After(moment) && !y.to.Before(moment) {
				count++
			}
		}
		most = max(most, count)
	}
	return most
}

// due says whether a peer is to be asked: its word is waited for, or, in epoch 0, will soon count no
// more.
func (s *words) due(peer bft.ReplicaID, m *replica.Membership) bool {
	w, ok := s.of(peer)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting > 0 || m.Epoch == 0 && (!ok || time.Since(w.at) > vouchedFor/2)
}

// of returns what a peer said, if that counts still.
func (s *words) of(peer bft.ReplicaID) (word, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := s.said[peer]
	return w, ok && time.Since(w.at) < vouchedFor
}

// under says whether a peer has vouched for the key that it shows.
func (s *words) under(from transport.Sender) bool {
	w, ok := s.of(from.ID)
	return ok && w.key.Equal(from.EpochKey)
}

// count returns how many members said what fits.
func (s *words) count(m *replica.Membership, fits func(bft.ReplicaID, word) bool) (count int) {
	for _, member := range m.Members {
		if w, ok := s.of(member.ID); ok && fits(member.ID, w) {
			count++
		}
	}
	return count
}

// term is the latest epoch of which f + 1 others say the same, so that one of them is right; the
// zero term when there is none.
func (s *words) term(m *replica.Membership) (latest transport.Term) {
	for term := range agreed(s, m, func(w word) transport.Term { return w.term }) {
		if term.Epoch > latest.Epoch {
			latest = term
		}
	}
	return latest
}

// groupKey is the group key that f + 1 others have; empty when there is none.
func (s *words) groupKey(m *replica.Membership) (key string) {
	for named := range agreed(s, m, func(w word) string { return w.groupKey }) {
		key = max(key, named)
	}
	return key
}

// agreed are the things that f + 1 others say.
func agreed[T comparable](s *words, m *replica.Membership, said func(word) T) map[T]int {
	all := make(map[T]int)
	s.count(m, func(_ bft.ReplicaID, w word) bool {
		all[said(w)]++
		return true
	})
	maps.DeleteFunc(all, func(_ T, count int) bool { return count <= m.Size.F })
	return all
}
