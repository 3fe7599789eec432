package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/internal/cluster"
)

// A replica that should vote and does not is shown as one that needs attention, whatever the log
// says of its share.
func TestStatusOfAShareThatIsNotInOrder(t *testing.T) {
	state := &cluster.State{Epoch: 3, Members: []cluster.MemberState{{ID: 1, HoldsShare: true, Status: "holds a share"}}}
	said := func(info cluster.Info) string { return memberStatus(state, cluster.Member{ID: 1, Info: &info}) }
	require.Contains(t, said(cluster.Info{Epoch: 3}), "reseal order round")
	require.Equal(t, "holds a share", said(cluster.Info{Epoch: 3, Voter: true}))
	require.Equal(t, "holds a share", said(cluster.Info{Epoch: 2}), "it is only behind")
	require.Contains(t, said(cluster.Info{Epoch: 3, Amnesia: true, AmnesiaReason: "forgot"}), "forgot")
}
