package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// A peer connects anew while a frame of its old connection is being handled: that one is finished
// first, what else the old connection had brought is not handled any more, and the new connection
// is the peer's from then on.
func TestANewConnectionTakesOverInOrder(t *testing.T) {
	members := newMembers(t, 2)
	synctest.Test(t, func(t *testing.T) {
		certificate, err := Credential(members[1].identity, cluster, 2, Term{}, newEpochKey(t))
		require.NoError(t, err)
		handled, release := []string(nil), make(chan struct{})
		callee := &Transport{
			cfg: Config{Cluster: cluster, Self: 1, Log: slog.New(slog.DiscardHandler), Handler: func(_ Sender, frame []byte) {
				handled = append(handled, string(frame))
				if string(frame) == "1" {
					<-release
				}
			}},
			peers: map[bft.ReplicaID]*peer{2: {Peer: members[1].peer}}, incoming: make(map[bft.ReplicaID]*incoming),
			handling: make(map[bft.ReplicaID]chan struct{}), twins: newTwins(slog.New(slog.DiscardHandler), 1), ctx: context.Background(),
		}
		state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{certificate.Leaf}}
		frames := func(data ...string) (conn net.Conn) {
			near, far := net.Pipe()
			require.NoError(t, callee.acceptFrames(near, state))
			go func() {
				_, _ = io.ReadFull(far, make([]byte, 1))
				var all []byte
				for _, d := range data {
					all = append(binary.BigEndian.AppendUint32(all, uint32(len(d))), d...)
				}
				_, _ = far.Write(all)
			}()
			return far
		}
		frames("1", "2")
		synctest.Wait()
		require.Equal(t, []string{"1"}, handled)
		second := frames("3")
		synctest.Wait()
		require.Equal(t, []string{"1"}, handled, "two frames of one peer are handled at once")
		close(release)
		synctest.Wait()
		require.Equal(t, []string{"1", "3"}, handled, "a frame of a connection that was replaced is handled")
		require.NotNil(t, callee.incoming[2], "the end of the old connection is taken for that of the new one")
		require.NoError(t, second.Close())
		callee.done.Wait()
		require.Empty(t, callee.incoming)

		delete(callee.peers, 2)
		near, _ := net.Pipe()
		require.Error(t, callee.acceptFrames(near, state), "it was removed")
		require.Error(t, callee.acceptFrames(near, tls.ConnectionState{}), "a client")
	})
}
