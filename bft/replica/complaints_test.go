package replica

import (
	"bytes"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
)

// A peer cannot fill the log, and so the disk, with what is refused of it; nor keep another's faults
// from being named.
func TestRefusedFramesDoNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, _ := hearing(t)
		r, err := w.replica(w.store(), &peers{})
		require.NoError(t, err)
		var log bytes.Buffer
		r.complaints.log = slog.New(slog.NewTextHandler(&log, nil))
		send := func(id bft.ReplicaID, frames int) {
			from := transport.Sender{ID: id, EpochKey: r.Membership().Member(id).EpochKey}
			for range frames {
				r.Receive(from, []byte{255})
			}
		}
		send(2, 10_000)
		send(3, 1)
		require.Equal(t, 2, bytes.Count(log.Bytes(), []byte("refused what a peer sent")))
		require.Contains(t, log.String(), "replica=3")
		<-time.After(complainEvery)
		send(2, 1)
		require.Contains(t, log.String(), "more_before=9999")
		require.Equal(t, 3, bytes.Count(log.Bytes(), []byte("\n")))
	})
}
