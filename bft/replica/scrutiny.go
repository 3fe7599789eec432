package replica

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
)

// What a peer can have this replica verify. A leader's blocks, which may carry ten thousand
// signatures each, come from nobody but itself: two of a view are looked at, as many as a core
// keeps. Headers and evidence come from anybody: of those a peer may have so many signatures
// verified, and so many more with each view that passes, up to the first number. A correct one needs
// three in a view. What is said again costs nothing, so that whoever repeats it is never silenced.
const (
	blocksOfView     = 2
	mostSignatures   = 64
	signaturesOfView = 8
	mostVerdicts     = 64 // that are remembered of a peer
)

var errScrutinized = errors.New("it has sent more to verify than a correct replica does: that is not looked at")

// scrutiny verifies the leaders' words that peers send once each, and bounds how many. Safe for
// concurrent use.
type scrutiny struct {
	mu    sync.Mutex
	peers map[string]*account // by the keys of connections: who has an old one takes nothing from who has the new one
	turns map[turnOf]*account // for the blocks of a view
	final bft.View            // there is none of this view or below
}

// turnOf is a view, under the key of the leader's connection.
type turnOf struct {
	view bft.View
	key  string
}

// account is what may still be verified, and what was found.
type account struct {
	left     int
	view     bft.View // when left was reckoned, of a peer's
	verdicts []verdict
}

// verdict is what was found of a message; who sends the same again hears the same.
type verdict struct {
	message [sha256.Size]byte
	err     error
}

// of is the account of a peer in a view.
func (s *scrutiny) of(key string, view bft.View) *account {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.peers[key]
	if a == nil {
		if s.peers == nil {
			s.peers = make(map[string]*account)
		}
		a = &account{left: mostSignatures, view: view}
		s.peers[key] = a
	}
	if view > a.view {
		a.left = min(mostSignatures, a.left+signaturesOfView*int(min(view-a.view, mostSignatures)))
		a.view = view
	}
	return a
}

// turn is the account of a leader's view. Those of views that are over are forgotten.
func (s *scrutiny) turn(at turnOf, final bft.View) *account {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turns == nil {
		s.turns = make(map[turnOf]*account)
	}
	if final > s.final {
		s.final = final
		maps.DeleteFunc(s.turns, func(t turnOf, _ *account) bool { return t.view <= final })
	}
	a := s.turns[at]
	if a == nil {
		a = &account{left: blocksOfView}
		s.turns[at] = a
	}
	return a
}

// once returns what is known of a message, or what check finds, if the account has as much left as
// that costs.
func (s *scrutiny) once(a *account, message [sha256.Size]byte, cost int, check func() error) error {
	s.mu.Lock()
	known := slices.IndexFunc(a.verdicts, func(v verdict) bool { return v.message == message })
	if known >= 0 && !broken("scrutiny-forgetful") {
		defer s.mu.Unlock()
		return a.verdicts[known].err
	}
	if a.left < cost && !broken("scrutiny-endless") {
		s.mu.Unlock()
		return errScrutinized
	}
	a.left -= cost
	s.mu.Unlock()
	err := check()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(a.verdicts) == mostVerdicts {
		a.verdicts = slices.Delete(a.verdicts, 0, 1)
	}
	a.verdicts = append(a.verdicts, verdict{message, err})
	return err
}

// examine validates what a peer sends, once, and not more than it may send.
func (e *epochRun) examine(from transport.Sender, m bft.Message) error {
	s, key, check := &e.scrutiny, string(from.EpochKey), func() error { return e.validate(m) }
	switch x := m.(type) {
	case *bft.Block:
		if leader := e.config.LeaderOf(x.View); leader != from.ID && !broken("blocks-of-others") {
			return fmt.Errorf("it sent a block of view %d, which replica %d leads: leaders send their own", x.View, leader)
		}
		turn := s.turn(turnOf{x.View, key}, bft.View(e.finalView.Load()))
		return s.once(turn, identify(bft.SignedHeader{Header: x.Header, Signature: x.Signature}), 1, check)
	case bft.SignedHeader:
		return s.once(s.of(key, bft.View(e.view.Load())), identify(x), 1, check)
	case bft.Evidence:
		return s.once(s.of(key, bft.View(e.view.Load())), identify(x.A, x.B), 2, check)
	}
	return check()
}

// identify tells signed headers from all others.
func identify(headers ...bft.SignedHeader) [sha256.Size]byte {
	h := sha256.New()
	for _, x := range headers {
		digest, signature := x.Digest(), sha256.Sum256(x.Signature)
		h.Write(digest[:])
		h.Write(signature[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}
