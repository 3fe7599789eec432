package recovery

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/transport"
)

// Words of several replicas count together when all can have spoken at one moment, after somebody
// has asked for a secret.
func TestWordsCountOfOneMoment(t *testing.T) {
	m := &replica.Membership{Epoch: 1, Size: bft.Size{F: 1}}
	for id := bft.ReplicaID(1); id <= 4; id++ {
		m.Members = append(m.Members, replica.Member{ID: id})
	}
	type said struct {
		by        bft.ReplicaID
		epoch     bft.Epoch
		asked, at int // tenths of a second after the beginning
	}
	for name, test := range map[string]struct {
		words []said
		since int
		count int
	}{
		"two, twice":                       {[]said{{1, 1, 0, 1}, {2, 1, 0, 2}, {1, 1, 3, 4}, {2, 1, 3, 4}}, 0, 2},
		"two, once":                        {[]said{{1, 1, 0, 1}, {2, 1, 0, 1}}, 0, 0},
		"one after the other":              {[]said{{1, 1, 0, 1}, {1, 1, 2, 3}, {2, 1, 4, 5}, {2, 1, 6, 7}}, 0, 1},
		"the second is asked too soon":     {[]said{{1, 1, 0, 1}, {1, 1, 2, 3}, {2, 1, 0, 4}, {2, 1, 5, 6}}, 0, 1},
		"before the secret was asked for":  {[]said{{1, 1, 0, 1}, {2, 1, 0, 1}, {1, 1, 3, 4}, {2, 1, 3, 4}}, 5, 0},
		"the first word before, not after": {[]said{{1, 1, 0, 1}, {2, 1, 0, 1}, {1, 1, 6, 7}, {2, 1, 6, 7}}, 5, 2},
		"one has gone on":                  {[]said{{1, 1, 0, 1}, {2, 1, 0, 1}, {1, 1, 3, 4}, {2, 2, 3, 4}}, 0, 1},
		"one was further already":          {[]said{{1, 1, 0, 1}, {2, 2, 0, 1}, {1, 1, 3, 4}, {2, 1, 3, 4}, {2, 1, 4, 5}}, 0, 1},
		"the first is too long ago":        {[]said{{1, 1, 0, 1}, {2, 1, 0, 1}, {1, 1, 55, 56}, {2, 1, 55, 56}}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, start := newWords(false), time.Now()
				moment := func(tenths int) time.Time { return start.Add(time.Duration(tenths) * 100 * time.Millisecond) }
				for _, x := range test.words {
					<-time.After(time.Until(moment(x.at)))
					s.hear(x.by, word{term: transport.Term{Epoch: x.epoch}, asked: moment(x.asked)})
				}
				require.Equal(t, test.count, s.together(m, 1, moment(test.since)))
			})
		})
	}
}
