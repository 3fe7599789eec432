package client

import (
	"context"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/bft/request"
)

// read reads a key of the store linearizably.
func read(t testing.TB, c *Client, key string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var value []byte
	_, err := c.Read(ctx, []byte(key), func(r *request.ReadReply) (err error) {
		value, _, err = kv.VerifyQuery(r.AppRoot, []byte(key), r.Answer, r.Proof)
		return err
	})
	require.NoError(t, err)
	return string(value)
}

// always answers a method with the same bytes, as a replica does that lies or has stood still.
func always(answers map[string][]byte) behaviour {
	return func(_ context.Context, method string, answer []byte) ([]byte, error) {
		if other, ok := answers[method]; ok {
			return other, nil
		}
		return answer, nil
	}
}

// A replica has stood still since the first write, another one is Byzantine: of every three answers
// one is of a correct replica that has voted for what the writer was told, and a client that has
// seen nothing reads the last write.
func TestReadsAreOfTheLastWriteWhateverOneReplicaClaims(t *testing.T) {
	for name, lie := range map[string]func(*testing.T, *service, *request.Anchor){
		"an old height":         func(*testing.T, *service, *request.Anchor) {},
		"an absurd height":      func(_ *testing.T, _ *service, a *request.Anchor) { a.Header.StateHeight = math.MaxUint64 - 3 },
		"a height not reached":  func(_ *testing.T, _ *service, a *request.Anchor) { a.Header.StateHeight = 4 },
		"another's certificate": func(_ *testing.T, _ *service, a *request.Anchor) { a.Header.View++ },
		"a nullification": func(_ *testing.T, s *service, a *request.Anchor) {
			a.Header.StateHeight, a.Certificate.Kind = 9, bft.Nullify
			p := s.share.Sign(bft.Statement{Epoch: 1, View: a.Header.View, Kind: bft.Nullify, Block: a.Header.Digest()}.Bytes(cluster))
			a.Certificate.Signature = p.Signature[:]
		},
		"a certificate without a signature": func(_ *testing.T, _ *service, a *request.Anchor) {
			a.Header.StateHeight, a.Certificate.Signature = 9, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			r := start(t, s, 4)
			writer := newClient(t, s, r.peers, 0)
			put(t, writer, "a", "1")
			oldClaim, err := s.claim(nil)
			require.NoError(t, err)
			oldRead, err := s.query([]byte("a"))
			require.NoError(t, err)
			put(t, writer, "a", "2")
			put(t, writer, "a", "3")

			anchor, err := request.ParseAnchor(oldClaim)
			require.NoError(t, err)
			lie(t, s, anchor)
			lied, err := anchor.MarshalBinary()
			require.NoError(t, err)
			r.behave(0, always(map[string][]byte{methodHeight: lied, methodRead: oldRead}))
			r.behave(1, always(map[string][]byte{methodHeight: oldClaim, methodRead: oldRead}))
			reader := newClient(t, s, r.peers, 10*time.Millisecond)
			reader.preferred.Store(0)
			require.Equal(t, "3", read(t, reader, "a"))
			require.Equal(t, bft.Height(3), reader.Seen())
		})
	}
}

func TestAReadTakesAQuorum(t *testing.T) {
	s := newService(t)
	r := start(t, s, 4)
	c := newClient(t, s, r.peers, 10*time.Millisecond)
	put(t, c, "a", "1")
	r.behave(0, silent)
	require.Equal(t, "1", read(t, c, "a"), "one may be away")
	r.behave(1, failing)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := c.Read(ctx, []byte("a"), nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "no quorum")
	r.behave(1, func(_ context.Context, _ string, answer []byte) ([]byte, error) { return answer, nil })
	require.Equal(t, "1", read(t, c, "a"), "it goes on when enough are back")
}

// The question to the quorum is shared by those that wait for it, but only by those that came
// before it was asked.
func TestReadsShareTheQuestion(t *testing.T) {
	s := newService(t)
	r := start(t, s, 4)
	c := newClient(t, s, r.peers, time.Hour)
	put(t, c, "a", "1")
	asked, answer := make(chan struct{}, 16), make(chan struct{})
	for i := range 4 {
		r.behave(i, func(_ context.Context, method string, data []byte) ([]byte, error) {
			if method == methodHeight {
				asked <- struct{}{}
				<-answer
			}
			return data, nil
		})
	}
	var group sync.WaitGroup
	group.Go(func() { require.Equal(t, "1", read(t, c, "a")) })
	for range 4 {
		<-asked
	}
	const late = 20
	for range late {
		group.Go(func() { require.Equal(t, "1", read(t, c, "a")) })
	}
	require.Eventually(t, func() bool {
		c.heights.mu.Lock()
		defer c.heights.mu.Unlock()
		return c.heights.next != nil && c.heights.next.waiting == late
	}, time.Minute, time.Millisecond)
	close(answer)
	group.Wait()
	for range 3 {
		<-asked // of the second question; the last call may have been given up
	}
	require.LessOrEqual(t, len(asked), 1, "twenty reads took one question")
}

// A question that nobody waits for any more is given up.
func TestAQuestionOfNobodyEnds(t *testing.T) {
	s := newService(t)
	r := start(t, s, 4)
	asked, ended := make(chan struct{}, 4), make(chan struct{}, 4)
	for i := range 4 {
		r.behave(i, func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
			asked <- struct{}{}
			<-ctx.Done()
			ended <- struct{}{}
			return nil, ctx.Err()
		})
	}
	c := newClient(t, s, r.peers, time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		_, err := c.Read(ctx, []byte("a"), nil)
		failed <- err
	}()
	for range 4 {
		<-asked
	}
	cancel()
	require.Error(t, <-failed)
	for range 4 {
		<-ended
	}
}

func TestReadNoticesAClusterThatWasPutBack(t *testing.T) {
	s := newService(t)
	c := newClient(t, s, start(t, s, 4).peers, 10*time.Millisecond)
	for _, value := range []string{"1", "2", "3"} {
		put(t, c, "a", value)
	}
	putBack(t, s)
	var back *WentBackError
	_, err := c.Read(t.Context(), []byte("a"), nil)
	require.ErrorAs(t, err, &back)
	require.Equal(t, WentBackError{Height: 1, Seen: 3}, *back)
}

func TestReadNeedsTheSize(t *testing.T) {
	s := newService(t)
	c := newClient(t, s, start(t, s, 2).peers, 0)
	_, err := c.Read(t.Context(), []byte("a"), nil)
	require.ErrorContains(t, err, "Config.Size")
}

// How far the state is proven, a quorum says of those who have their identity keys now: who had one
// once says what was so at that time, under a certificate that is good for ever.
func TestAReadAsksThoseWhoHaveTheirIdentityKeysNow(t *testing.T) {
	s := newService(t)
	for _, proving := range []int{2, 3} {
		c := newClient(t, s, startProving(t, s, 4, func(i int) bool { return i < proving }).peers, 50*time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if proving == 3 {
			ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		}
		_, err := c.Read(ctx, []byte("a"), nil)
		cancel()
		if proving == 3 {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
	}
}
