package recoverytest

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/threshold"
)

const methods = "reseal/handoff/"

// caller is the intruder on a machine of its own, where it has only what it took. It is in the
// network as the owner of a credential, to one replica.
type caller struct {
	*transport.Transport
	as credential
	to bft.ReplicaID
}

func (x *intruder) outside(as credential, to bft.ReplicaID) (*caller, error) {
	t, err := transport.New(transport.Config{
		Cluster: x.c.genesis.ClusterID(), Self: as.owner, Listen: "127.0.0.1:0", Certificate: as.Certificate, Log: x.c.log,
		Handler: func(transport.Sender, []byte) {},
	})
	if err != nil {
		return nil, err
	}
	peers, err := x.c.peers(as.owner)
	for _, p := range peers {
		if p.ID == to {
			t.SetPeers([]transport.Peer{p})
		}
	}
	return &caller{t, as, to}, err
}

func (c *caller) call(ctx context.Context, method string, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return c.CallUnder(ctx, c.as.Certificate, c.to, methods+method, request)
}

// usable are the credentials, for an epoch, of replicas that the intruder has left. One that did
// not recover in time keeps its key: it has no share, and gets none.
func (x *intruder) usable(v *governance.View, epoch bft.Epoch) []credential {
	var out []credential
	for _, c := range x.loot.credentials {
		owner := v.Member(c.owner)
		lapsed := !owner.HoldsShare && owner.EpochKey.Equal(c.PrivateKey.(ed25519.PrivateKey).Public())
		if !x.at[c.owner] && c.epoch == epoch && c.made+2 >= epoch && !lapsed {
			out = append(out, c)
		}
	}
	return out
}

// someone draws a replica that is up, besides the owner of a credential; 0 for none.
func (x *intruder) someone(as credential, fits func(*governance.MemberView) bool) bft.ReplicaID {
	var ids []bft.ReplicaID
	for _, m := range x.c.view().Members {
		if m.ID != as.owner && m.ID != x.c.behind && x.c.nodes[m.ID-1] != nil && fits(&m) {
			ids = append(ids, m.ID)
		}
	}
	if len(ids) == 0 {
		return 0
	}
	return ids[x.draw.IntN(len(ids))]
}

// probe tries to be admitted under credentials of an epoch that is over, and under those of this
// epoch that were made before it, and to be given points under these.
func (x *intruder) probe(ctx context.Context) {
	v := x.c.view()
	if len(v.LastHandoff.Dealings) == 0 {
		return
	}
	digest := v.LastHandoff.Dealings[0].Commitment
	ask := func(as credential, method string) bool {
		if as.made >= v.Epoch {
			return false
		}
		to := x.someone(as, func(*governance.MemberView) bool { return true })
		if to == 0 {
			return false
		}
		c, err := x.outside(as, to)
		if err != nil {
			return false
		}
		defer c.Close()
		answer, err := c.call(ctx, method, digest[:])
		return err == nil && len(answer) > 0
	}
	for _, as := range x.usable(v, v.Epoch-1) {
		if ask(as, "commitment") {
			x.findings[fmt.Sprintf("epoch %d: a credential of epoch %d of replica %d is admitted", v.Epoch, as.epoch, as.owner)] = true
		}
	}
	for _, as := range x.usable(v, v.Epoch) {
		if ask(as, "commitment") {
			x.findings[fmt.Sprintf("epoch %d: a credential of replica %d that was made ahead in epoch %d is admitted", v.Epoch, as.owner, as.made)] = true
		}
		if ask(as, "point") {
			x.findings[fmt.Sprintf("epoch %d: a point is given under a key of replica %d that was taken in epoch %d", v.Epoch, as.owner, as.made)] = true
		}
	}
}

// raid tries to be given parts while dealings are made, until the next epoch begins, or the round
// is given up.
func (x *intruder) raid(ctx context.Context, before *governance.View) {
	done := map[governance.Round]bool{}
	ticker := time.NewTicker(4 * time.Millisecond)
	defer ticker.Stop()
	for {
		v := x.c.view()
		if over(v, before) {
			return
		}
		if v.Phase == governance.PhaseDealing && !done[v.Round] {
			done[v.Round] = true
			x.fetch(ctx, v)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// over says whether a round that was opened after some state has led to an epoch, or was given up.
func over(now, before *governance.View) bool {
	return now.Epoch > before.Epoch || now.Phase == governance.PhaseIdle && now.Round > before.Round
}

// fetch asks dealers of a handoff for the parts of replicas that the intruder has left.
func (x *intruder) fetch(ctx context.Context, v *governance.View) {
	name := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(v.Epoch)), uint64(v.Round))
	for _, as := range x.usable(v, v.Epoch) {
		to := x.someone(as, func(m *governance.MemberView) bool { return m.HoldsShare })
		if to == 0 {
			continue
		}
		c, err := x.outside(as, to)
		if err != nil {
			continue
		}
		answer, err := c.call(ctx, "part", name)
		_ = c.Close()
		if err == nil && x.given(answer) {
			x.findings[fmt.Sprintf("epoch %d: the part of replica %d of a dealing is given under a key that was taken in epoch %d", v.Epoch, as.owner, as.made)] = true
		}
	}
}

// given takes a part that a dealer gave.
func (x *intruder) given(answer []byte) bool {
	s := cryptobyte.String(answer)
	var raw cryptobyte.String
	if !s.ReadUint24LengthPrefixed(&raw) {
		return false
	}
	if commitment, err := threshold.ParseCommitment(raw); err == nil {
		x.loot.parts = append(x.loot.parts, takenPart{commitment, s})
		x.judge.commitments[commitment.Digest()] = commitment
	}
	return true
}
