package recoverytest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"maps"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/threshold"
)

// credential is one that the identity key of a replica signed while the intruder was there.
type credential struct {
	owner       bft.ReplicaID
	made, epoch bft.Epoch
	tls.Certificate
}

// ahead is for how many epochs to come the intruder makes credentials.
const ahead = 3

// intruder is where it is, and what it has.
type intruder struct {
	c      *cluster
	judge  *judge
	loot   loot
	at     bft.ReplicaID
	random ed25519.PrivateKey // the key that it plants
	// past is all that the disks ever held.
	past map[string][]byte
	// findings are what it achieved, beyond secrets that the judge computes.
	findings map[string]bool
}

func newIntruder(c *cluster) *intruder {
	g := c.genesis
	return &intruder{
		c: c, judge: newJudge(threshold.Params{N: g.Size().N(), T: g.Size().Quorum(), F: g.F}), past: map[string][]byte{}, findings: map[string]bool{},
		loot: loot{keys: map[[32]byte]bool{}, records: map[string][]byte{}},
	}
}

// remember has the judge take down what is public, and the disks remember what they hold.
func (x *intruder) remember() error {
	for id := range x.c.ids() {
		node := x.c.nodes[id-1]
		if node == nil {
			continue
		}
		m, err := readMemory(node)
		if err != nil {
			return err
		}
		x.judge.note(node.State(), m)
		for name, value := range m.records {
			digest := fmt.Sprintf("%d\x00%s\x00%x", id, name, value[:min(len(value), 8)])
			x.past[digest] = value
		}
	}
	return nil
}

// enter takes everything of a replica.
func (x *intruder) enter(id bft.ReplicaID, plant bool) error {
	x.at = id
	epoch := x.c.nodes[id-1].State().Epoch
	x.judge.enter(epoch, id)
	m, err := readMemory(x.c.nodes[id-1])
	if err != nil {
		return err
	}
	if len(m.keys) == 0 || len(m.epochKeys) == 0 {
		return fmt.Errorf("the intruder found nothing in replica %d: the kit reads memory in the wrong place", id)
	}
	x.loot.take(m)
	own := fmt.Appendf(nil, "%d\x00", id)
	for name, value := range x.past {
		if bytes.HasPrefix([]byte(name), own) {
			x.loot.records[name] = value
		}
	}
	if _, x.random, err = ed25519.GenerateKey(rand.Reader); err != nil {
		return err
	}
	if plant {
		if err := x.plant(id, epoch); err != nil {
			return err
		}
	}
	for _, key := range append(m.epochKeys, x.random) {
		for e := epoch; e <= epoch+ahead; e++ {
			certificate, err := transport.Credential(x.c.keystores[id-1].Identity(), x.c.genesis.ClusterID(), id, e, key)
			if err != nil {
				return err
			}
			x.loot.credentials = append(x.loot.credentials, credential{id, epoch, e, certificate})
		}
	}
	return nil
}

// plant seals the present secret with an epoch key of the intruder's for the next epoch.
func (x *intruder) plant(id bft.ReplicaID, epoch bft.Epoch) error {
	device := x.c.keystores[id-1]
	node := x.c.nodes[id-1]
	raw, err := device.Unseal(uint64(epoch))
	if err != nil {
		return nil // it has none, or the device opens nothing more in this boot
	}
	m, err := readMemory(node)
	if err != nil {
		return err
	}
	for _, key := range m.epochKeys {
		raw = bytes.ReplaceAll(raw, key.Seed(), x.random.Seed())
	}
	return device.Seal(uint64(epoch)+1, raw)
}

// follow takes everything of the replica that the intruder stays in when its epoch has begun.
func (x *intruder) follow(epoch bft.Epoch) error {
	if x.at == 0 {
		return nil
	}
	x.judge.enter(epoch, x.at)
	m, err := readMemory(x.c.nodes[x.at-1])
	if err == nil {
		x.loot.take(m)
	}
	return err
}

// outside is a connection of one who has only what he took.
func (x *intruder) outside(as credential) (*transport.Transport, error) {
	peers, err := x.c.peers(as.owner)
	if err != nil {
		return nil, err
	}
	t, err := transport.New(transport.Config{
		Cluster: x.c.genesis.ClusterID(), Self: as.owner, Listen: "127.0.0.1:0", Certificate: as.Certificate, Log: x.c.log,
		Handler: func(transport.Sender, []byte) {},
	})
	if err == nil {
		t.SetPeers(peers)
	}
	return t, err
}

const methods = "reseal/handoff/"

// usable are the credentials of replicas that the intruder has left.
func (x *intruder) usable() []credential {
	var out []credential
	for _, c := range x.loot.credentials {
		if c.owner != x.at {
			out = append(out, c)
		}
	}
	return out
}

// call calls a replica as another one.
func (x *intruder) call(ctx context.Context, as credential, to bft.ReplicaID, method string, request []byte) ([]byte, error) {
	t, err := x.outside(as)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	return t.CallUnder(ctx, as.Certificate, to, methods+method, request)
}

// probe tries to be admitted, and to be given points, in an epoch that has begun.
func (x *intruder) probe(ctx context.Context) {
	v := x.c.view()
	if len(v.LastHandoff.Dealings) == 0 {
		return
	}
	for _, as := range x.usable() {
		if as.made >= v.Epoch {
			continue
		}
		to := as.owner%bft.ReplicaID(v.N) + 1
		if x.c.nodes[to-1] == nil || to == as.owner {
			continue
		}
		digest := v.LastHandoff.Dealings[0].Commitment
		if _, err := x.call(ctx, as, to, "commitment", digest[:]); err == nil && as.epoch < v.Epoch {
			x.findings[fmt.Sprintf("epoch %d: replica %d admits a credential of epoch %d of replica %d", v.Epoch, to, as.epoch, as.owner)] = true
		}
		if answer, err := x.call(ctx, as, to, "point", digest[:]); err == nil && len(answer) > 0 {
			x.findings[fmt.Sprintf("epoch %d: replica %d gives its point under a key of replica %d that was taken in epoch %d", v.Epoch, to, as.owner, as.made)] = true
		}
	}
}

// raid tries to be given parts while dealings are made.
func (x *intruder) raid(ctx context.Context, epoch bft.Epoch) {
	done := map[governance.Round]bool{}
	for ctx.Err() == nil {
		v := x.c.view()
		if v.Epoch > epoch {
			return
		}
		if v.Phase == governance.PhaseDealing && !done[v.Round] {
			done[v.Round] = true
			x.fetch(ctx, v)
		}
		timer := time.NewTimer(2 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// fetch asks the dealers of a handoff for the parts of replicas that the intruder has left.
func (x *intruder) fetch(ctx context.Context, v *governance.View) {
	name := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(v.Epoch)), uint64(v.Round))
	for _, as := range x.usable() {
		if as.epoch != v.Epoch {
			continue
		}
		for _, m := range v.Members {
			if m.ID == as.owner || !m.HoldsShare {
				continue
			}
			answer, err := x.call(ctx, as, m.ID, "part", name)
			s := cryptobyte.String(answer)
			var raw cryptobyte.String
			if err != nil || !s.ReadUint24LengthPrefixed(&raw) {
				continue
			}
			x.findings[fmt.Sprintf("epoch %d: the part of replica %d of a dealing is given under a key that was taken in epoch %d", v.Epoch, as.owner, as.made)] = true
			if commitment, err := threshold.ParseCommitment(raw); err == nil {
				x.loot.parts = append(x.loot.parts, takenPart{commitment, s})
			}
		}
	}
}

// found are all findings so far.
func (x *intruder) found() []string {
	list := x.judge.secrets(&x.loot)
	for f := range maps.Keys(x.findings) {
		list = append(list, f)
	}
	return list
}
