package stage

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/cluster"
)

// told is a cluster of one replica that tells one state after the other, and the last one for ever;
// nil stands for no answer.
type told []*cluster.State

func (c *told) Ask(context.Context) []cluster.Member {
	state := (*c)[0]
	if len(*c) > 1 {
		*c = (*c)[1:]
	}
	if state == nil {
		return []cluster.Member{{ID: 1, Err: "connection refused"}}
	}
	return []cluster.Member{{ID: 1, Info: &cluster.Info{Epoch: state.Epoch, Height: 7, State: []byte{byte(state.Epoch), byte(state.Round), byte(len(state.Phase))}}}}
}

var errNobody = errors.New("nobody answers")

func (c *told) Agreed(members []cluster.Member) (*cluster.State, error) {
	info := members[0].Info
	if info == nil {
		return nil, errNobody
	}
	s := state(info.Epoch, uint64(info.State[1]), map[byte]string{4: "idle", 7: "dealing", 9: "attesting"}[info.State[2]])
	return s, nil
}

func state(epoch bft.Epoch, round uint64, phase string) *cluster.State {
	return &cluster.State{Epoch: epoch, Round: round, Phase: phase, Members: []cluster.MemberState{{ID: 1, Status: "well"}}}
}

// awaiting plays a wait in virtual time.
func awaiting(t *testing.T, tells told, wanted func(*Sight) (bool, error)) (seen *Sight, err error) {
	synctest.Test(t, func(t *testing.T) {
		s := &Stage{Control: &Control{members: &tells}}
		seen, err = s.await(t.Context(), "it is so", wanted)
	})
	return seen, err
}

func TestAWaitInVainSaysWhyNothingWasSeen(t *testing.T) {
	epoch := func(v *Sight) (bool, error) { return v.Epoch >= 3, nil }

	_, err := awaiting(t, told{nil}, epoch)
	require.ErrorIs(t, err, errNobody)
	require.ErrorContains(t, err, "waited in vain until it is so")
	require.ErrorContains(t, err, "replica 1: connection refused")

	_, err = awaiting(t, told{state(2, 1, "idle")}, epoch)
	require.ErrorContains(t, err, "seen last: epoch 2, round 1, phase idle")
	require.ErrorContains(t, err, "replica 1 (well) is at height 7")

	_, err = awaiting(t, told{state(2, 1, "idle"), nil}, epoch)
	require.ErrorIs(t, err, errNobody)
	require.ErrorContains(t, err, "seen last: epoch 2")

	seen, err := awaiting(t, told{state(2, 1, "idle"), nil, state(3, 1, "idle")}, epoch)
	require.NoError(t, err)
	require.EqualValues(t, 3, seen.Epoch)
}

func TestWhatIsSeenNeverGoesBack(t *testing.T) {
	s := told{state(3, 5, "idle"), state(2, 4, "idle"), state(3, 5, "attesting")}
	c := &Control{members: &s}
	_, err := c.Look(t.Context())
	require.NoError(t, err)
	_, err = c.Look(t.Context())
	require.ErrorContains(t, err, "those that answer are in epoch 2, round 4, and epoch 3, round 5 was seen before")
	v, err := c.Look(t.Context())
	require.NoError(t, err)
	require.Equal(t, "attesting", v.Phase)
}

func TestARoundThatWasOverBetweenTwoLooksIsAnError(t *testing.T) {
	before := state(2, 4, "idle")
	opened := func(v *Sight) (bool, error) { return v.opened(before) }

	seen, err := awaiting(t, told{before, before, state(2, 5, "attesting")}, opened)
	require.NoError(t, err)
	require.EqualValues(t, 5, seen.Round)
	for _, later := range []*cluster.State{state(2, 5, "dealing"), state(2, 6, "idle"), state(3, 5, "idle")} {
		_, err := awaiting(t, told{before, later}, opened)
		require.ErrorContains(t, err, "was over before the reboots that it is for")
		require.NotContains(t, err.Error(), "waited in vain")
	}
}
