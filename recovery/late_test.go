package recovery

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// slow is a network over which the log comes no further while held is true.
type slow struct {
	Network
	held func() bool
}

func (s slow) Call(ctx context.Context, to bft.ReplicaID, method string, request []byte) ([]byte, error) {
	if method == "reseal/log" && s.held() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Network.Call(ctx, to, method, request)
}

// A cluster that is busy makes its log nearly as fast as a replica that comes back executes it. A
// round does not wait for that: who is due attests when it knows of the round.
func TestAReplicaAttestsWhileItCatchesUp(t *testing.T) {
	n := startNodes(t, 1, 1)
	for i := range n.running {
		n.awaitEpoch(i, 1)
	}
	n.stop(5)
	n.order(1, n.groupKey(0), 6)
	n.awaitState(1, func(v *governance.View) bool { return v.Member(6).Due })
	var starting atomic.Pointer[Node]
	var free atomic.Bool
	n.configure = func(cfg *NodeConfig) {
		cfg.Network = func(tc transport.Config) (Network, error) {
			network, err := connect(tc)
			return slow{network, func() bool {
				node := starting.Load()
				return !free.Load() && (node == nil || node.State().Member(6).Due)
			}}, err
		}
	}
	n.start(5)
	starting.Store(n.running[5])
	n.awaitState(1, func(v *governance.View) bool { return len(v.Attested) == 1 || v.Epoch == 2 })
	require.False(t, n.running[5].live.Load(), "it has not caught up")
	free.Store(true)
	for i := range n.running {
		n.awaitEpoch(i, 2)
	}
	require.NotZero(t, n.running[0].State().Member(6).RecoveredEpoch)
}
