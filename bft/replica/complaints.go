package replica

import (
	"log/slog"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/internal/seldom"
)

// complainEvery is how often what one peer does wrong is said in the log, at most.
const complainEvery = 10 * time.Second

// complaints says in the log what is wrong with what peers send. Safe for concurrent use.
type complaints struct {
	log    *slog.Logger
	teller *seldom.Teller[bft.ReplicaID]
}

func newComplaints(log *slog.Logger) complaints {
	return complaints{log, seldom.New[bft.ReplicaID](complainEvery)}
}

// about warns of a peer, and tells how often there was cause for it since the last time.
func (c *complaints) about(peer bft.ReplicaID, message string, err error) {
	if more, due := c.teller.Due(peer, time.Now()); due {
		c.log.Warn(message, "replica", peer, "error", err, "more_before", more)
	}
}
