package bft

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// cut is a partition in which the f last replicas are Byzantine: they run the protocol, but send no
// first and no finalize votes, and no vote in a view before every isolated replica has given it up,
// to which they then show the certificate. So blocks are notarized, and none can become final.
type cut struct {
	*lab
	isolated, evil []ReplicaID
	on             bool
	held           map[View]Certificate
}

func newCut(t *testing.T, size Size, window int) *cut {
	n := size.N()
	c := &cut{lab: newLab(t, size, window), on: true, held: make(map[View]Certificate)}
	c.evil = ids(n-size.F+1, n)
	c.isolated = ids(size.Quorum()-size.F+1, n-size.F)
	c.pass = func(from, to ReplicaID, m Message) Message {
		v, isVote := m.(Vote)
		cert, isCert := m.(Certificate)
		if int(from) > n-size.F {
			switch {
			case isVote && v.Kind == Finalize, isCert && cert.Kind == Finalize:
				return nil
			case isVote && v.Kind == Notarize:
				v.First = false
				m = v
			}
			if c.on && (isVote || isCert) && !c.ripe(m) {
				c.after(200, func() { c.send(from, to, m) })
				return nil
			}
		}
		if !c.on || c.side(from) == c.side(to) {
			return m
		}
		return nil
	}
	c.serves = func(from, to ReplicaID) bool { return !c.on || c.side(from) == c.side(to) }
	c.nodes[1].effects = func(e Effect) {
		if s, ok := e.(StoreCertificate); ok && s.Certificate.Kind != Finalize {
			c.held[s.Certificate.View] = s.Certificate
		}
	}
	for _, id := range c.evil {
		c.nodes[id].patient = true
	}
	c.start()
	c.feed()
	return c
}

func (c *cut) side(id ReplicaID) bool {
	return id >= c.isolated[0] && id <= c.isolated[len(c.isolated)-1]
}

// ripe reports whether a message is about a view that all isolated replicas have voted in.
func (c *cut) ripe(m Message) bool {
	view := View(0)
	switch m := m.(type) {
	case Vote:
		view = m.View
	case Certificate:
		view = m.View
	}
	for _, id := range c.isolated {
		core := c.nodes[id].core
		if r := core.at(core.view); core.view < view || core.view == view && (r == nil || len(r.own) == 0) {
			return false
		}
	}
	return true
}

// feed shows an isolated replica the certificate of its view once it has given the view up.
func (c *cut) feed() {
	if !c.on {
		return
	}
	for _, id := range c.isolated {
		m := c.nodes[id]
		r := m.core.at(m.core.view)
		if cert, ok := c.held[m.core.view]; ok && r != nil && len(r.own) > 0 {
			m.step(Receive{c.evil[0], cert})
		}
	}
	c.after(20, c.feed)
}

// open returns how many views the cluster has open.
func (c *cut) open() View { return c.nodes[1].core.View() - c.nodes[1].core.finalView }

// Whatever a partition left behind, a good network and correct leaders bring finality, in a time
// that does not depend on how: the time for the views of as many leaders as can fail.
func TestFinalityAfterPartition(t *testing.T) {
	for _, run := range []struct {
		size    Size
		window  int
		open    View
		restart bool
	}{
		{Size{1, 0}, 4, 50, false}, {Size{1, 0}, 4, 140, false}, {Size{1, 0}, 4, 700, true}, {Size{1, 0}, 1, 1100, true},
		{Size{1, 1}, 4, 200, true}, {Size{1, 1}, 8, 400, false}, {Size{2, 0}, 4, 200, true}, {Size{2, 1}, 4, 150, true},
	} {
		t.Run(fmt.Sprintf("f=%d,c=%d,window=%d,open=%d", run.size.F, run.size.C, run.window, run.open), func(t *testing.T) {
			c := newCut(t, run.size, run.window)
			began := c.now
			require.True(t, c.run(2*time.Hour, func() bool { return c.nodes[c.isolated[0]].core.View() > run.open }))
			lasted := time.Duration(c.now-began) * time.Millisecond
			correct := ids(1, c.size.N()-c.size.F)
			before := c.final(correct...)
			require.Zero(t, before, "the adversary has lost its touch")
			c.on = false
			if run.restart {
				for _, m := range c.nodes[1:] {
					m.stop()
					m.start()
				}
			}
			healed := c.now
			limit := time.Duration(2*(run.size.F+run.size.C+1)) * c.nodes[1].core.strained(2*c.times.View)
			done := c.run(limit, func() bool { return c.final(correct...) > Height(run.open)/2 })
			t.Logf("a partition of %v, %d views open; final %v after it: %d", lasted, c.open(), time.Duration(c.now-healed)*time.Millisecond, c.final(correct...))
			require.True(t, done)
			require.True(t, c.run(30*time.Second, func() bool { return c.final(correct...) > Height(c.open())+200 }))
		})
	}
}

// A replica comes back to a cluster that needs its vote, and hundreds of views have passed without
// a block.
func TestReturnAfterManyNullifiedViews(t *testing.T) {
	for _, views := range []View{70, 700} {
		t.Run(fmt.Sprint(views), func(t *testing.T) {
			l := newLab(t, Size{1, 0}, 64)
			l.start()
			require.True(t, l.run(time.Minute, func() bool { return l.final(1, 2, 3, 4) >= 3 }))
			l.nodes[4].stop()
			for _, m := range l.nodes[1:] {
				m.mute = true
			}
			at := l.nodes[1].core.View()
			require.True(t, l.run(1000*time.Hour, func() bool { return l.nodes[1].core.View() > at+views }))
			for _, m := range l.nodes[1:] {
				m.mute = false
				m.asked = 0
			}
			l.nodes[3].stop() // so that the one that was away is needed
			l.nodes[4].start()
			before := l.final(1, 2)
			healed := l.now
			done := l.run(4*l.nodes[1].core.strained(l.times.ViewMax), func() bool { return l.final(1, 2, 4) > before })
			require.True(t, done, "views %d %d %d", l.nodes[1].core.View(), l.nodes[2].core.View(), l.nodes[4].core.View())
			t.Logf("%d views open, final %v after the return", l.nodes[1].core.View()-at, time.Duration(l.now-healed)*time.Millisecond)
		})
	}
}

// Views beyond every bound pass without a block: memory stays bounded, a restart finds the core
// where it was, and the first block that becomes final sets it free.
func TestBoundOfViews(t *testing.T) {
	cfg := Config{Size: Size{1, 0}, Self: 4, Leaders: ids(1, 4), Window: 4, Voter: true, Timeouts: labTimeouts}
	core, err := New(cfg, Restored{})
	require.NoError(t, err)
	feed(core, core.Start(Now{1, 1}))
	var kept Restored
	b := &Block{Header: Header{View: 1, Height: 1, Proposer: 1, Time: 1, Payload: emptyPayload}, Signature: make([]byte, SignatureSize)}
	notarization := Certificate{Statement{0, 1, Notarize, b.Digest()}, []byte("certificate")}
	kept.Certificates, kept.Blocks = append(kept.Certificates, notarization), append(kept.Blocks, b)
	feed(core, core.Step(Now{1, 1}, Receive{1, b}))
	feed(core, core.Step(Now{1, 1}, Receive{2, notarization}))
	for v := View(2); v <= maxViews+1000; v++ {
		cert := Certificate{Statement{0, v, Nullify, Digest{}}, []byte("certificate")}
		kept.Certificates = append(kept.Certificates, cert)
		feed(core, core.Step(Now{1, 1}, Receive{2, cert}))
	}
	require.Equal(t, View(maxViews), core.View())
	views, blocks := core.Held()
	require.LessOrEqual(t, views, maxViews+VotesAhead)
	require.LessOrEqual(t, blocks, 2)

	again, err := New(cfg, kept)
	require.NoError(t, err)
	feed(again, again.Start(Now{1, 1}))
	require.Equal(t, core.View(), again.View())
	for _, c := range []*Core{core, again} {
		feed(c, c.Step(Now{1, 1}, Receive{1, Certificate{Statement{0, 1, Finalize, b.Digest()}, []byte("certificate")}}))
		_, final := c.Final()
		require.Equal(t, View(1), final)
		require.Equal(t, View(maxViews+1), c.View())
	}
}

// The waits grow with the views that pass, so that with the shortest timeouts, in ten years, fewer
// pass than are held.
func TestViewsNeverRunOut(t *testing.T) {
	core := &Core{cfg: Config{Timeouts: Timeouts{Idle: time.Millisecond}}}
	passed, views := time.Duration(0), View(0)
	for decade := 10 * 365 * 24 * time.Hour; passed < decade; views += strainViews {
		core.view = views
		passed += min(strainViews*core.strained(time.Millisecond), decade)
	}
	require.Less(t, views, View(maxViews))
}
