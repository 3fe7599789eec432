package handoff

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
)

// waited is a context that says when somebody begins to wait for it.
type waited struct {
	context.Context
	begins func()
}

func (w waited) Done() <-chan struct{} {
	w.begins()
	return w.Context.Done()
}

// The dealer's device is held up, by another user of it, from before a part is asked for until the
// epoch may be long over. What others vouched for meanwhile says nothing of the moment in which the
// part is given.
func TestAPartIsVouchedForWhenItIsThere(t *testing.T) {
	x := newCluster(t, 1, 0)
	x.handoff()
	x.open(nil)
	dealer, v := x.machines[3], x.View()
	busy, free := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(free) })
	t.Cleanup(release)
	once := sync.OnceFunc(func() { close(busy) })
	dealer.device.before = func() {
		once()
		<-free
	}
	dealer.party.Follow(dealer.ctx, v)
	<-busy
	dealer.party.mu.Lock()
	a := dealer.party.attempt
	dealer.party.mu.Unlock()
	isThere := false
	dealer.party.cfg.Present = func(context.Context, bft.Epoch) error {
		select {
		case <-a.dealt:
			isThere = true
		default:
		}
		return nil
	}
	from := &transport.Sender{ID: 3, EpochKey: v.Member(3).EpochKey}
	_, err := x.call(waited{t.Context(), release}, from, dealer.id, methodPart, a.name())
	require.NoError(t, err)
	require.True(t, isThere, "what was vouched for was the time before the device was free")
}
