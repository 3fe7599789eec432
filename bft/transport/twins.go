package transport

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/internal/seldom"
)

// Two processes that run as one replica, as with a copied directory, have the same keys, and each
// displaces the other's connections. Each has made a certificate of its own when it started, and a
// process does not go back to one that it has put off: whoever comes again under one, after another
// one was shown, is not alone.
const (
	// twinLives is how long a connection of frames is left alone by the twin of who made it.
	twinLives = 10 * time.Second
	// twinSeen is for how long after the last sign two processes are said to run.
	twinSeen = time.Minute
	// twinReturns in twinSeen are a sign; two could be a connection that was long in coming, and the
	// one that it displaced.
	twinReturns = 3
	// pastCertificates are remembered of a peer: as many processes, and one, are found out.
	pastCertificates = 3
)

var errTwin = errors.New("another process that runs as this replica is connected already: stop both, and start the one that is meant to run")

// twins notices replicas that run twice, this one included. Safe for concurrent use.
type twins struct {
	log    *slog.Logger
	faulty int // f: whom that many accuse may be accused by liars alone
	teller *seldom.Teller[bft.ReplicaID]

	mu     sync.Mutex
	peers  map[bft.ReplicaID]*appearances
	accuse map[bft.ReplicaID]time.Time // the peers that say it of this replica, and when they last did
}

// appearances are how a replica has shown itself.
type appearances struct {
	now     [sha256.Size]byte   // the certificate of its last connection
	past    [][sha256.Size]byte // those before, oldest first
	returns []time.Time         // when it came back to one of those
	seen    time.Time           // when it was last found to run twice
}

func newTwins(log *slog.Logger, faulty int) *twins {
	return &twins{
		log: log, faulty: faulty, teller: seldom.New[bft.ReplicaID](twinSeen),
		peers: make(map[bft.ReplicaID]*appearances), accuse: make(map[bft.ReplicaID]time.Time),
	}
}

func (t *twins) of(id bft.ReplicaID) *appearances {
	if t.peers[id] == nil {
		t.peers[id] = new(appearances)
	}
	return t.peers[id]
}

// appears takes note of a connection of a replica under a certificate, and reports whether two
// processes run as it.
func (t *twins) appears(id bft.ReplicaID, certificate []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, now, shown := t.of(id), time.Now(), sha256.Sum256(certificate)
	if shown != a.now {
		if slices.Contains(a.past, shown) {
			a.returns = append(a.returns, now)
			a.returns = a.returns[max(0, len(a.returns)-twinReturns):]
		}
		a.past = append(slices.DeleteFunc(a.past, func(p [sha256.Size]byte) bool { return p == shown }), a.now)
		a.past = a.past[max(0, len(a.past)-pastCertificates):]
		a.now = shown
		if len(a.returns) == twinReturns && now.Sub(a.returns[0]) < twinSeen {
			t.found(id, a, now)
		}
	}
	return a.runsTwice(now)
}

// told takes a peer's word that two processes run as this replica. It is believed, and said on, when
// f + 1 peers have said so within twinSeen, one of which has seen it: f of them may lie, and this
// replica's own word would make their lie the word of f + 1.
func (t *twins) told(self, by bft.ReplicaID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.accuse[by] = now
	maps.DeleteFunc(t.accuse, func(_ bft.ReplicaID, said time.Time) bool { return now.Sub(said) >= twinSeen })
	if len(t.accuse) > t.faulty {
		t.found(self, t.of(self), now, "say", slices.Sorted(maps.Keys(t.accuse)))
	}
	return fmt.Errorf("replica %d: %w", by, errTwin)
}

// found says it in the log, once in a while.
func (t *twins) found(id bft.ReplicaID, a *appearances, now time.Time, by ...any) {
	a.seen = now
	if _, due := t.teller.Due(id, now); !due {
		return
	}
	t.log.Warn("two processes run as one replica: its directory was copied, or its machine restored, and both vote. Stop both, start the one that is meant to run, "+
		"and let it recover: reseal order round --due N", append([]any{"twice", id}, by...)...)
}

func (a *appearances) runsTwice(now time.Time) bool {
	return !a.seen.IsZero() && now.Sub(a.seen) < twinSeen
}

// Twice returns the replicas as which two processes were seen to run within the last minute; of this
// replica, by what F + 1 peers have told it.
func (t *Transport) Twice() []bft.ReplicaID {
	t.twins.mu.Lock()
	defer t.twins.mu.Unlock()
	var ids []bft.ReplicaID
	for id, a := range t.twins.peers {
		if a.runsTwice(time.Now()) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
