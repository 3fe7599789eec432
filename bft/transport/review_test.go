package transport

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A connection does not outlive what the peer was admitted for: neither frames nor calls go to who
// holds a key that counts no more, on a connection of before.
func TestAConnectionEndsWithWhatAdmittedIt(t *testing.T) {
	members := newMembers(t, 2)
	var over atomic.Bool
	cfg := members[0].config(t, nil)
	cfg.Admit = func(Sender) error {
		if over.Load() {
			return errors.New("its epoch is over")
		}
		return nil
	}
	members[0].start(t, cfg)
	members[1].start(t, members[1].config(t, peersOf(members)))
	members[1].Handle("reseal/answer", func(context.Context, *Sender, []byte) ([]byte, error) { return []byte("yes"), nil })
	members[0].review = 5 * time.Millisecond
	members[0].SetPeers(peersOf(members))
	eventually(t, func() bool { return len(members[0].Connected()) == 1 }, "connected")
	eventually(t, func() bool {
		answer, err := members[0].Call(t.Context(), 2, "reseal/answer", nil)
		return err == nil && string(answer) == "yes"
	}, "a call")

	over.Store(true)
	eventually(t, func() bool { return len(members[0].Connected()) == 0 }, "the frames end")
	_, err := members[0].Call(t.Context(), 2, "reseal/answer", nil)
	require.Error(t, err)
	over.Store(false)
	eventually(t, func() bool { return len(members[0].Connected()) == 1 }, "who is admitted again is connected again")
}
