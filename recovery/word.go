package recovery

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
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

// presentFor is how long ago a peer was asked whose word counts where a secret is given: those that
// ask for parts at about the same time wait for one answer.
const presentFor = 5 * time.Second

// soon is the pause between two answers that are waited for: by a replica in epoch 0, which admits
// nobody before, and by who is to be given a secret.
const soon = 100 * time.Millisecond

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
// begun, having been asked presentFor ago at most. When one has, f + c correct replicas at most do
// not know it, and f others say so: one too few.
func (n *Node) present(ctx context.Context, last bft.Epoch) error {
	defer n.words.await()()
	since := time.Now().Add(-presentFor)
	for {
		news, m := n.words.news(), n.state.Membership()
		count := n.words.count(m, func(_ bft.ReplicaID, w word) bool { return w.term.Epoch <= last && w.asked.After(since) })
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
	heard   chan struct{} // closed, and made anew, when another word comes
	wants   chan struct{} // likewise, when somebody begins to wait
	waiting int
}

func newWords() *words {
	return &words{said: make(map[bft.ReplicaID]word), heard: make(chan struct{}), wants: make(chan struct{})}
}

// hear takes note of what a peer says: the last counts.
func (s *words) hear(from bft.ReplicaID, w word) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.at = time.Now()
	s.said[from] = w
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

// due says whether a peer is to be asked: its word is waited for, or, in epoch 0, will soon count no
// more.
func (s *words) due(peer bft.ReplicaID, m *replica.Membership) bool {
	w, ok := s.of(peer)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting > 0 && (!ok || time.Since(w.asked) > presentFor/2) || m.Epoch == 0 && (!ok || time.Since(w.at) > vouchedFor/2)
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
