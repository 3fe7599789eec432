package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/cluster"
)

// A replica that should vote and does not is shown as one that needs attention, whatever the log
// says of its share.
func TestStatusOfAShareThatIsNotInOrder(t *testing.T) {
	state := &cluster.State{Epoch: 3, Members: []cluster.MemberState{{ID: 1, HoldsShare: true, Status: "holds a share"}}}
	said := func(info cluster.Info) string { return memberStatus(state, cluster.Member{ID: 1, Info: &info}, nil, 0) }
	require.Contains(t, said(cluster.Info{Epoch: 3}), "reseal order round")
	require.Equal(t, "holds a share", said(cluster.Info{Epoch: 3, Voter: true}))
	require.Equal(t, "holds a share", said(cluster.Info{Epoch: 2}), "it is only behind")
	require.Contains(t, said(cluster.Info{Epoch: 3, Amnesia: true, AmnesiaReason: "forgot"}), "forgot")
}

// A replica that f + 1 others see twice is no cluster that is well.
func TestStatusOfAReplicaThatRunsTwice(t *testing.T) {
	answers := []cluster.Member{
		{ID: 1, Info: &cluster.Info{Twice: []bft.ReplicaID{3}}}, {ID: 2, Info: &cluster.Info{Twice: []bft.ReplicaID{3}}}, {ID: 3, Err: "gone"},
	}
	require.Equal(t, []bft.ReplicaID{1, 2}, cluster.Twice(answers, 3))
	require.Empty(t, cluster.Twice(answers, 1))
	require.Contains(t, memberStatus(nil, answers[2], cluster.Twice(answers, 3), 0), "two processes ran as it within the last minute, say [1 2]: stop both")
}

func TestStatusOfAClockThatIsOff(t *testing.T) {
	answer := cluster.Member{ID: 1, Info: new(cluster.Info)}
	require.Contains(t, memberStatus(nil, answer, nil, time.Hour), "its clock is 1h0m0s ahead of the others'")
	require.Contains(t, memberStatus(nil, answer, nil, -time.Hour), "its clock is 1h0m0s behind the others'")
}
