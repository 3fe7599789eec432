package replica

import (
	"log/slog"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
)

// complainEvery is how often what one peer does wrong is said in the log, at most: a line for each of
// its frames would fill the disk.
const complainEvery = 10 * time.Second

// complaints says in the log what is wrong with what peers send. Safe for concurrent use.
type complaints struct {
	log *slog.Logger

	mu    sync.Mutex
	peers map[bft.ReplicaID]*complaint
}

type complaint struct {
	said   time.Time
	unsaid int // since then
}

// about warns of a peer, and tells how often there was cause for it since the last time.
func (c *complaints) about(peer bft.ReplicaID, message string, err error) {
	c.mu.Lock()
	p := c.peers[peer]
	if p == nil {
		if c.peers == nil {
			c.peers = make(map[bft.ReplicaID]*complaint)
		}
		p = new(complaint)
		c.peers[peer] = p
	}
	if !p.said.IsZero() && time.Since(p.said) < complainEvery {
		p.unsaid++
		c.mu.Unlock()
		return
	}
	unsaid := p.unsaid
	p.said, p.unsaid = time.Now(), 0
	c.mu.Unlock()
	c.log.Warn(message, "replica", peer, "error", err, "more_before", unsaid)
}
