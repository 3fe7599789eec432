package recovery

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"runtime"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/recovery/handoff"
)

// submitter puts system operations of this node into requests, under a client key of this process.
// The operations authenticate themselves.
type submitter struct {
	cluster bft.ClusterID
	key     ed25519.PrivateKey
	height  func() bft.Height // of the executed log

	mu   sync.Mutex
	slot uint64
	last [request.Window]uint64 // sequence numbers, by slot
}

func newSubmitter(n *Node) (*submitter, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return &submitter{cluster: n.cluster, key: key, height: func() bft.Height { return n.replica.Load().Status().Height }}, err
}

func (s *submitter) request(op governance.Operation) (*request.Request, error) {
	raw, err := governance.Encode(op)
	if err != nil {
		return nil, err
	}
	return request.New(s.cluster, s.key, s.sequence(), request.System, [][]byte{raw})
}

// sequence numbers the next request: the slots in turn.
func (s *submitter) sequence() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := &s.last[s.slot]
	*last = request.NextSequence(*last, s.slot, s.height(), time.Now())
	s.slot = (s.slot + 1) % request.Window
	return *last
}

// order submits a system operation through this replica. Whether it took effect, the state will show.
func (n *Node) order(op governance.Operation) error {
	req, err := n.client.request(op)
	if err != nil {
		return err
	}
	return n.replica.Load().Enqueue(req)
}

// submitPatience is how long evidence may take to be ordered and proven.
const submitPatience = 10 * time.Second

// orderThroughOthers submits a system operation as any client would, through every other replica:
// this one's channels may not count yet.
func (n *Node) orderThroughOthers(ctx context.Context, op governance.Operation) error {
	req, err := n.client.request(op)
	if err != nil {
		return err
	}
	for _, m := range n.state.Membership().Members {
		peer := m.ID
		if peer == n.cfg.Self {
			continue
		}
		n.working.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, submitPatience)
			defer cancel()
			if _, err := n.transport.Call(ctx, peer, replica.MethodSubmit, req.Raw()); err != nil && !transport.Unavailable(err) && ctx.Err() == nil {
				n.log.Debug("a replica did not order the evidence", "replica", peer, "error", err)
			}
		})
	}
	return nil
}

// methodInfo tells clients where a node stands. The answer proves nothing: a client that needs
// certainty asks several.
const methodInfo = "reseal/info"

// Info is what a node says of itself.
type Info struct {
	Replica bft.ReplicaID `json:"replica"`
	replica.Status
	Keystore string `json:"keystore"`
	// Holds is what this process holds, whatever the state says that it should.
	Holds     handoff.Holding `json:"holds"`
	Connected []bft.ReplicaID `json:"connected"`
	// Twice are the replicas as which this one has seen two processes run within the last minute.
	Twice []bft.ReplicaID `json:"twice,omitempty"`
	// Clock is the machine's wall clock, in milliseconds since 1970.
	Clock int64 `json:"clock_ms"`
	// Goroutines are those of the process: flat while the load is.
	Goroutines int              `json:"goroutines"`
	View       *governance.View `json:"state"`
}

// Info returns where the node stands.
func (n *Node) Info() Info {
	return Info{
		Replica: n.cfg.Self, Status: n.replica.Load().Status(), Keystore: n.keystoreKind, Holds: n.keeper.Holding(),
		Connected: n.transport.Connected(), Twice: n.transport.Twice(), Clock: n.cfg.Clock().UnixMilli(),
		Goroutines: runtime.NumGoroutine(), View: n.state.View(),
	}
}

// infoFor is how long an answer is told to all who ask: making one costs more than asking for it.
const infoFor = 50 * time.Millisecond

// info is the answer that was made last. Safe for concurrent use.
type info struct {
	mu     sync.Mutex
	at     time.Time
	answer []byte
}

// get returns the answer, which is made when it is too old.
func (i *info) get(now time.Time, made func() ([]byte, error)) ([]byte, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.answer != nil && now.Sub(i.at) < infoFor {
		return i.answer, nil
	}
	answer, err := made()
	if err == nil {
		i.answer, i.at = answer, now
	}
	return answer, err
}

func (n *Node) serveInfo(ctx context.Context, _ *transport.Sender, _ []byte) ([]byte, error) {
	leave, err := transport.Turn(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return n.info.get(time.Now(), func() ([]byte, error) { return json.Marshal(n.Info()) })
}
