package recoverytest

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/threshold"
)

// methodEpoch tells anybody the epoch of a replica, the block that it builds on, and the group key.
const methodEpoch = "reseal/epoch"

// echo is what a replica said of its epoch, and the keys that its log named, when it was left
// behind.
type echo struct {
	of    bft.ReplicaID
	word  []byte
	named *governance.View
}

// word is what a replica tells anybody of its epoch.
func (c *cluster) word(ctx context.Context, id bft.ReplicaID) ([]byte, error) {
	peers, err := c.peers(0)
	if err != nil {
		return nil, err
	}
	conn, err := transport.Dial(c.genesis.ClusterID(), peers[id-1])
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.Call(ctx, methodEpoch, nil)
}

// term is the epoch of a replica, and the block that it builds on, as it tells anybody.
func (c *cluster) term(ctx context.Context, id bft.ReplicaID) (term transport.Term, err error) {
	word, err := c.word(ctx, id)
	if err == nil && len(word) < 8+len(term.Base) { // behind it is the group key
		err = fmt.Errorf("replica %d does not tell its epoch", id)
	}
	if err != nil {
		return term, err
	}
	return transport.Term{Epoch: bft.Epoch(binary.BigEndian.Uint64(word)), Base: bft.Digest(word[8 : 8+len(term.Base)])}, nil
}

// leaveBehind cuts a replica off. Where the intruder is, it is told what it says itself.
func (x *intruder) leaveBehind(ctx context.Context, id bft.ReplicaID) error {
	c := x.c
	if c.behind == id {
		return nil
	}
	word, err := c.word(ctx, id)
	if err != nil {
		return err
	}
	c.cut[id-1].Store(true)
	c.behind = id
	c.echo.Store(&echo{id, word, c.nodes[id-1].State()})
	return nil
}

// leaveBehindInDealing cuts a replica off that deals; or does not when the round was given up before.
func (x *intruder) leaveBehindInDealing(ctx context.Context, id bft.ReplicaID, before *governance.View) error {
	err := x.c.await(ctx, "dealings are made", func() bool {
		return x.c.nodes[id-1].State().Phase == governance.PhaseDealing || over(x.c.view(), before)
	})
	if err != nil {
		return err
	}
	return x.leaveBehind(ctx, id)
}

// reunite lets the network bring everybody everything.
func (c *cluster) reunite() {
	if c.behind != 0 {
		c.cut[c.behind-1].Store(false)
		c.behind = 0
		c.echo.Store(nil)
	}
}

// says is what one that is cut off is told by another one, for which the identity key there vouches:
// nothing, or where the intruder is, what it said itself.
func (c *cluster) says(to, as bft.ReplicaID, method string) ([]byte, ed25519.PublicKey, error) {
	e := c.echo.Load()
	if e == nil || e.of != to || method != methodEpoch || !c.taken[as-1].Load() {
		return nil, nil, errCut
	}
	return slices.Clone(e.word), e.named.Member(as).EpochKey, nil
}

// meet asks one that was left behind, before it hears of the others again, for all that it gives
// under the keys that its log names.
func (x *intruder) meet(ctx context.Context, t Turn) error {
	c := x.c
	if c.behind == 0 || c.behind == t.Behind {
		return nil
	}
	x.askBehind(ctx)
	c.reunite()
	x.unsettled = errors.Join(x.unsettled, c.settle(ctx, c.view().Epoch))
	return nil
}

func (x *intruder) askBehind(ctx context.Context) {
	v := x.c.nodes[x.c.behind-1].State()
	asked := map[bft.ReplicaID]bool{x.c.behind: true}
	for _, as := range x.loot.credentials {
		m := v.Member(as.owner)
		key := as.PrivateKey.(ed25519.PrivateKey).Public().(ed25519.PublicKey)
		if asked[as.owner] || as.epoch != v.Epoch || !m.EpochKey.Equal(key) && !m.NextKey.Equal(key) {
			continue
		}
		asked[as.owner] = true
		if err := x.askBehindAs(ctx, as, v); err != nil {
			x.c.log.Warn("the intruder cannot ask", "as", as.owner, "error", err)
		}
	}
}

// askBehindAs asks for the points of the handoff that led to its epoch, and for the part of what it
// deals in this one.
func (x *intruder) askBehindAs(ctx context.Context, as credential, v *governance.View) error {
	c, err := x.outside(as, x.c.behind)
	if err != nil {
		return err
	}
	defer c.Close()
	type answer struct {
		dealing *bft.Digest // nil: of a part
		raw     []byte
	}
	answers := make(chan answer)
	ask := func(dealing *bft.Digest, method string, request []byte) {
		raw, _ := c.call(ctx, method, request)
		answers <- answer{dealing, raw}
	}
	for _, d := range v.LastHandoff.Dealings {
		go ask(&d.Commitment, "point", d.Commitment[:])
	}
	go ask(nil, "part", binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(v.Epoch)), uint64(v.Round)))
	for range len(v.LastHandoff.Dealings) + 1 {
		a := <-answers
		if a.dealing == nil {
			x.given(a.raw)
		} else if p, err := threshold.ParsePoint(a.raw); err == nil {
			x.loot.points = append(x.loot.points, takenPoint{*a.dealing, bft.ReplicaID(p.From), bft.ReplicaID(p.To), a.raw})
		}
	}
	return nil
}
