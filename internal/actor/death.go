package actor

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
)

// step is called before every step of a handoff that can be seen from around the node: what it asks
// of others, what it serves, and what it has its keystore do. When it is the one that the conduct
// names, the process ends, at once.
func (a *Actor) step(format string, args ...any) {
	at := a.conduct.Load().DiesBefore
	if at == 0 {
		return
	}
	what := fmt.Sprintf(format, args...)
	if a.steps.take(what) != at {
		return
	}
	fmt.Fprintf(os.Stderr, "step %d: before %s\n", at, what)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // it cannot fail
	select {}                                      // nothing goes on until it has arrived
}

// uses is a step that is another one each time: a keystore is asked the same for different reasons.
func (a *Actor) uses(format string, args ...any) {
	if a.conduct.Load().DiesBefore != 0 {
		a.step("%s (use %d of the keystore)", fmt.Sprintf(format, args...), a.steps.use())
	}
}

// steps are those that were taken since the present conduct was told.
type steps struct {
	mu    sync.Mutex
	taken map[string]bool
	used  int
}

func (s *steps) use() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used++
	return s.used
}

func (s *steps) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken, s.used = nil, 0
}

// take returns which step this is; 0 when it was taken before.
func (s *steps) take(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken[what] {
		return 0
	}
	if s.taken == nil {
		s.taken = make(map[string]bool)
	}
	s.taken[what] = true
	return len(s.taken)
}

func (a *Actor) calls(to bft.ReplicaID, method string) {
	if name, ok := strings.CutPrefix(method, handoff); ok {
		a.step("it calls replica %d: %s", to, name)
	}
}

func (a *Actor) served(to bft.ReplicaID, method string) {
	if name, ok := strings.CutPrefix(method, handoff); ok {
		a.step("it serves replica %d: %s", to, name)
	}
}

// keeps puts the actor before a keystore.
func (a *Actor) keeps(ks keystore.Keystore) keystore.Keystore {
	k := stepping{ks, a}
	if attester, ok := ks.(keystore.Attester); ok {
		return attesting{k, attester}
	}
	return k
}

// stepping is a keystore whose uses are steps.
type stepping struct {
	keystore.Keystore
	actor *Actor
}

// attesting is one on a TPM.
type attesting struct {
	stepping
	keystore.Attester
}

func (s stepping) Seal(epoch uint64, secret []byte) error {
	s.actor.uses("it seals for epoch %d", epoch)
	return s.Keystore.Seal(epoch, secret)
}

func (s stepping) Unseal(epoch uint64) ([]byte, error) {
	s.actor.uses("it unseals of epoch %d", epoch)
	return s.Keystore.Unseal(epoch)
}

func (s stepping) Claim() error {
	s.actor.uses("it claims the boot")
	return s.Keystore.Claim()
}

func (s stepping) Advance(epoch uint64) error {
	s.actor.uses("it advances to epoch %d", epoch)
	return s.Keystore.Advance(epoch)
}

func (a attesting) Quote(nonce []byte) (*keystore.Quote, error) {
	a.actor.uses("it has the TPM quote")
	return a.Attester.Quote(nonce)
}
