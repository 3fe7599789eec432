package cluster

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// stateText is a state of a cluster of four in JSON, with fields that this program does not know.
func stateText(epoch, round int) string {
	return fmt.Sprintf(`{"epoch":%d,"round":%d,"future":true,"members":[{"id":1},{"id":2},{"id":3,"status":"well"},{"id":4}]}`, epoch, round)
}

func told(t *testing.T, states ...string) []Member {
	var members []Member
	for i, state := range states {
		m := Member{ID: bft.ReplicaID(i + 1), Err: "no answer"}
		if state != "" {
			info, err := parseInfo([]byte(`{"epoch":1,"height":7,"state":` + state + `}`))
			require.NoError(t, err)
			m.Info, m.Err = info, ""
		}
		members = append(members, m)
	}
	return members
}

func TestAgreedIsWhatMoreThanFTell(t *testing.T) {
	p := plan(t, File)
	genesis, err := Create(t.Context(), p)
	require.NoError(t, err)
	members, err := Dial(genesis)
	require.NoError(t, err)
	defer members.Close()
	old, now, lie := stateText(1, 1), stateText(2, 3), stateText(9, 9)

	state, err := members.Agreed(told(t, now, now, old, lie))
	require.NoError(t, err)
	require.EqualValues(t, 2, state.Epoch)
	require.Equal(t, "well", state.Member(3).Status)

	state, err = members.Agreed(told(t, old, now, old, now))
	require.NoError(t, err)
	require.EqualValues(t, 2, state.Epoch, "the later of two that are told often enough")

	_, err = members.Agreed(told(t, old, now, lie, ""))
	require.ErrorIs(t, err, ErrNoAgreement)
	_, err = members.Agreed(told(t, "", "", "", ""))
	require.ErrorIs(t, err, ErrNoAgreement)
	few := `{"members":[{"id":1}]}`
	_, err = members.Agreed(told(t, few, few, "", ""))
	require.ErrorContains(t, err, "1 members instead of 4")
	swapped := `{"members":[{"id":2},{"id":1},{"id":3},{"id":4}]}`
	_, err = members.Agreed(told(t, swapped, swapped, "", ""))
	require.ErrorContains(t, err, "stands in place")
}

func TestParseInfoRefusesNonsense(t *testing.T) {
	for _, text := range []string{``, `[]`, `{}`, `{"epoch":-1}`} {
		_, err := parseInfo([]byte(text))
		require.Error(t, err, text)
	}
}

func TestAskSaysWhoDoesNotAnswer(t *testing.T) {
	genesis, err := Create(t.Context(), plan(t, File))
	require.NoError(t, err)
	members, err := Dial(genesis)
	require.NoError(t, err)
	defer members.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, m := range members.Ask(ctx) {
		require.Nil(t, m.Info)
		require.NotEmpty(t, m.Err)
	}
	require.NoError(t, ctx.Err(), "that nobody listens is known at once")
}

func TestPeersOfRefusesAnotherKindOfKey(t *testing.T) {
	_, err := peersOf(&governance.Genesis{Members: []governance.GenesisMember{{ID: 1, Identity: []byte("no key")}}})
	require.ErrorContains(t, err, "replica 1")
}

func TestTheServiceStandsStillWithoutAQuorumOfVoters(t *testing.T) {
	p := plan(t, File)
	genesis, err := Create(t.Context(), p)
	require.NoError(t, err)
	members := &Members{genesis: genesis}
	now := stateText(2, 3)
	answers := told(t, now, now, now, now)
	for i := range answers {
		answers[i].Info.Voter = true
	}
	require.NoError(t, members.Serves(answers))
	answers[3].Info = nil
	require.NoError(t, members.Serves(answers), "three of four are a quorum")
	for name, info := range map[string]*Info{"is down": nil, "does not vote": {}, "goes by another state": {Voter: true, Diverged: true}} {
		answers[2].Info = info
		require.ErrorContains(t, members.Serves(answers), "2 replicas vote, and it takes 3", name)
	}
}

func TestClocksThatAreOff(t *testing.T) {
	members := &Members{genesis: &governance.Genesis{F: 1, Timeouts: governance.Timeouts{Ahead: governance.Duration(5 * time.Second)}}}
	now := time.Unix(1_800_000_000, 0)
	off := func(took time.Duration, ahead ...time.Duration) map[bft.ReplicaID]time.Duration {
		var answers []Member
		for i, a := range ahead {
			answers = append(answers, Member{ID: bft.ReplicaID(i + 1), Info: &Info{Clock: now.Add(a).UnixMilli()}, asked: now.Add(-took), heard: now.Add(took)})
		}
		return members.ClocksOff(append(answers, Member{ID: 9, Err: "down"}, Member{ID: 8, Info: &Info{}}))
	}
	type found = map[bft.ReplicaID]time.Duration
	require.Equal(t, found{2: time.Hour}, off(0, 0, time.Hour, 0, 0))
	require.Equal(t, found{1: -time.Hour}, off(0, -time.Hour, 0, 0))
	require.Equal(t, found{4: -time.Hour}, off(0, time.Hour, time.Hour, time.Hour, 0), "the clock of who asks is the wrong one")
	require.Empty(t, off(0, 0, 4*time.Second, 0, -4*time.Second), "as much as the genesis allows")
	require.Empty(t, off(time.Second, 0, 6*time.Second, 0, 0), "the answers were long in coming")
	require.Empty(t, off(0, 0, time.Hour), "too few to tell who is wrong")

	far := []Member{{ID: 1, Info: &Info{Clock: math.MaxInt64}}, {ID: 2, Info: &Info{Clock: math.MinInt64}}, {ID: 3, Info: &Info{Clock: now.UnixMilli()}}}
	for i := range far {
		far[i].asked, far[i].heard = now, now
	}
	require.Len(t, members.ClocksOff(far), 2)
}

// A replica runs twice if f + 1 say so that have proved who they are: f liars do not make `status`
// fail, nor does one who has an old key of several replicas.
func TestSingleIsNotForLiarsToSay(t *testing.T) {
	genesis, err := Create(t.Context(), plan(t, File))
	require.NoError(t, err)
	members, err := Dial(genesis)
	require.NoError(t, err)
	defer members.Close()
	require.Equal(t, 1, genesis.F)
	state := stateText(1, 1)
	answers := told(t, state, state, state, state)
	answers[0].Info.Twice = []bft.ReplicaID{1, 2, 3, 4}
	require.NoError(t, members.Single(answers))
	answers[2].Info.Twice, answers[2].Unproven = []bft.ReplicaID{3}, "no vouching"
	require.NoError(t, members.Single(answers))
	answers[3].Info.Twice = []bft.ReplicaID{3}
	require.ErrorContains(t, members.Single(answers), "two processes ran as replica 3")
}
