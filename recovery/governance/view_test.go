package governance

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/attest"
)

func TestViewForPrograms(t *testing.T) {
	c := inEpoch1(t)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	before := c.state.View()
	c.tpms[3].boot(bad14)
	c.refused(attest.ReasonPCR, c.evidence(3))
	require.Equal(t, PhaseAttesting, before.Phase, "a view is not changed afterwards")

	b, err := json.Marshal(c.state.View())
	require.NoError(t, err)
	var v struct {
		Cluster, Phase string
		Due, Refused   []int
		LastHandoff    struct {
			Dealings []struct {
				Commitment string
				PublicKey  string `json:"public_key"`
			}
		} `json:"last_handoff"`
		Members []struct {
			Status  string
			Refusal *struct{ Reason, Sentence string }
		}
		Counts struct{ Refused map[string]int }
	}
	require.NoError(t, json.Unmarshal(b, &v))
	require.Len(t, v.Cluster, 64)
	require.Equal(t, "dealing", v.Phase)
	require.Equal(t, []int{3}, v.Due)
	require.Equal(t, []int{3}, v.Refused)
	require.Len(t, v.LastHandoff.Dealings, 4)
	require.Len(t, v.LastHandoff.Dealings[0].Commitment, 64)
	require.Len(t, v.LastHandoff.Dealings[0].PublicKey, 192)
	require.Equal(t, "pcr", v.Members[2].Refusal.Reason)
	require.Equal(t, "evidence refused: "+v.Members[2].Refusal.Sentence, v.Members[2].Status)
	require.Equal(t, "holds a share", v.Members[0].Status)
	require.Equal(t, map[string]int{"pcr": 1}, v.Counts.Refused)
	require.NotNil(t, c.state.View().Member(6))
	require.Nil(t, c.state.View().Member(7))
	require.Nil(t, c.state.View().Member(0))
}
