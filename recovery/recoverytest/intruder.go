package recoverytest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/store"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/keystore"
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
	c     *cluster
	judge *judge
	loot  loot
	at    map[bft.ReplicaID]bool
	draw  *rand.Rand
	// revoked: the log has revoked a boot state.
	revoked bool
	// unsettled is what the cluster did not do in time.
	unsettled error
	// findings are what it achieved, beyond secrets that the judge computes.
	findings map[string]bool
}

func newIntruder(c *cluster) *intruder {
	g := c.genesis
	return &intruder{
		c: c, judge: newJudge(threshold.Params{N: g.Size().N(), T: g.Size().Quorum(), F: g.F}), findings: map[string]bool{},
		at: map[bft.ReplicaID]bool{}, draw: rand.New(rand.NewPCG(uint64(g.Created.UnixNano()), 9)),
		loot: loot{keys: map[[32]byte]bool{}, records: map[string][]byte{}},
	}
}

// remember has the judge take down what is public, and the intruder copy all disks for ever: those
// of clean replicas were stolen before, or will be.
func (x *intruder) remember() error {
	for id := range x.c.ids() {
		if err := x.c.fleet.Copy(id); err != nil {
			return err
		}
		node := x.c.nodes[id-1]
		if node == nil {
			continue
		}
		m, err := readMemory(node)
		if err != nil {
			return err
		}
		v := node.State()
		x.judge.note(v, m)
		if share := x.judge.worthless(v, m); share != "" {
			x.findings[fmt.Sprintf("epoch %d: replica %d holds %s", v.Epoch, id, share)] = true
		}
		for name, value := range m.records {
			x.loot.records[fmt.Sprintf("%d\x00%s\x00%x", id, name, value[:min(len(value), 40)])] = value
		}
	}
	return nil
}

// enter takes everything of a replica.
func (x *intruder) enter(ctx context.Context, id bft.ReplicaID, plants bool) error {
	if x.at[id] = true; len(x.at) > x.c.genesis.F {
		return fmt.Errorf("the intruder is in %d replicas: the cluster does not follow the plan", len(x.at))
	}
	node := x.c.nodes[id-1]
	if node == nil { // the play was broken off
		return fmt.Errorf("replica %d is down when the intruder comes", id)
	}
	v := node.State()
	x.judge.enter(v.Epoch, id)
	x.c.taken[id-1].Store(true)
	m, err := readMemory(node)
	if err != nil {
		return err
	}
	if len(m.keys) == 0 || len(m.epochKeys) == 0 {
		return fmt.Errorf("the intruder found nothing in replica %d: the kit reads memory in the wrong place", id)
	}
	x.loot.take(m)
	if err := x.try(ctx, id); err != nil {
		return err
	}
	_, own, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	keys := append(m.epochKeys, own)
	if plants {
		if err := x.plant(id, v, m, own); err != nil {
			return err
		}
	}
	terms, err := x.terms(ctx, id)
	if err != nil {
		return err
	}
	slices.SortFunc(keys, func(a, b ed25519.PrivateKey) int { return bytes.Compare(a, b) })
	for _, key := range slices.CompactFunc(keys, func(a, b ed25519.PrivateKey) bool { return bytes.Equal(a, b) }) {
		for _, term := range terms {
			certificate, err := transport.Credential(x.c.keystores[id-1].Identity(), x.c.genesis.ClusterID(), id, term, key)
			if err != nil {
				return err
			}
			x.loot.credentials = append(x.loot.credentials, credential{id, v.Epoch, term.Epoch, certificate})
		}
	}
	return nil
}

// terms are what the intruder has credentials say of their epoch: this one, those to come, whose
// base nobody knows, and that of one that is left behind.
func (x *intruder) terms(ctx context.Context, id bft.ReplicaID) ([]transport.Term, error) {
	now, err := x.c.term(ctx, id)
	if err != nil {
		return nil, err
	}
	terms := []transport.Term{now}
	for e := now.Epoch + 1; e <= now.Epoch+ahead; e++ {
		terms = append(terms, transport.Term{Epoch: e, Base: now.Base})
	}
	if x.c.behind == 0 {
		return terms, nil
	}
	then, err := x.c.term(ctx, x.c.behind)
	return append(terms, then), err
}

// plant leaves in the device what the fleet knows of, and a secret for the next epoch, with an
// epoch key and a vault key of the intruder's.
func (x *intruder) plant(id bft.ReplicaID, v *governance.View, m *memory, key ed25519.PrivateKey) error {
	if err := x.c.fleet.Plant(id, v.Epoch); err != nil {
		return err
	}
	s := &sealed{seed: key.Seed(), vault: m.keys[0]}
	if len(m.shares) > 0 {
		s.share = m.shares[0]
	}
	if group, err := hex.DecodeString(v.GroupKey); err == nil && v.GroupKey != "" {
		s.groupKey = sha256.Sum256(group)
	}
	return x.c.keystores[id-1].Seal(uint64(v.Epoch)+1, s.encode())
}

// plantShare leaves, while the machine is off, a share of no worth for the next epoch, under the
// key that the log names, and its sharing.
func (x *intruder) plantShare(id bft.ReplicaID, epoch bft.Epoch) error {
	c := x.c
	v := c.view()
	group, err := hex.DecodeString(v.GroupKey)
	key := x.loot.epochKey(v.Member(id).EpochKey)
	if err != nil || v.Epoch != epoch || epoch == 0 || key == nil {
		return err // too late for it
	}
	s, sharing, err := worthless(key, int(id), x.judge.params, group)
	if err != nil {
		return err
	}
	x.loot.keys[s.vault] = true
	disk, err := store.Open(storeDir, c.genesis.ClusterID(), store.Options{FS: c.disks[id-1]})
	if err != nil {
		return err
	}
	batch := disk.NewBatch()
	err = errors.Join(batch.PutMeta(fmt.Sprintf("sharing/%d/", epoch+1), sharing), batch.Commit(true), disk.Close())
	if err != nil {
		return err
	}
	return c.fleet.Offline(context.Background(), id, func(ks keystore.Keystore) error { return ks.Seal(uint64(epoch)+1, s.encode()) })
}

// follow takes everything of the replicas that the intruder stays in when their epoch has begun.
func (x *intruder) follow(epoch bft.Epoch) error {
	for id := range x.at {
		x.judge.enter(epoch, id)
		m, err := readMemory(x.c.nodes[id-1])
		if err != nil {
			return err
		}
		x.loot.take(m)
	}
	return nil
}

// try tries the copies of a replica's keystore on its device.
func (x *intruder) try(ctx context.Context, id bft.ReplicaID) error {
	stolen, err := x.c.fleet.Try(ctx, id, x.at[id])
	if err != nil {
		return fmt.Errorf("the intruder's ways to the device of replica %d are gone: %w", id, err)
	}
	return x.got(id, stolen)
}

// tryDevices tries all devices as another user of their machines.
func (x *intruder) tryDevices(ctx context.Context) error {
	for id := range x.c.ids() {
		if x.c.nodes[id-1] != nil && !x.at[id] {
			if err := x.try(ctx, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// misboot tries the copies in boots that nobody approved.
func (x *intruder) misboot(ctx context.Context, id bft.ReplicaID) error {
	stolen, err := x.c.fleet.Misboot(ctx, id, x.revoked)
	if err != nil {
		return fmt.Errorf("the intruder cannot boot the machine of replica %d: %w", id, err)
	}
	return x.got(id, stolen)
}

// got takes what devices gave away.
func (x *intruder) got(id bft.ReplicaID, stolen []Stolen) error {
	for _, s := range stolen {
		if s.Secret == nil {
			x.findings[fmt.Sprintf("epoch %d, replica %d: %s", x.c.view().Epoch, id, s.How)] = true
			continue
		}
		secret, err := parseSealed(s.Secret)
		if err != nil {
			return fmt.Errorf("%w: %w", errFormat, err)
		}
		x.loot.keys[secret.vault] = true
		if secret.share != nil {
			x.loot.shares = append(x.loot.shares, secret.share)
		}
		key := ed25519.NewKeyFromSeed(secret.seed)
		x.loot.epochKeys = append(x.loot.epochKeys, key)
		if v := x.c.view(); !x.at[id] && !x.judge.inside[v.Epoch][id] && v.Member(id).EpochKey.Equal(key.Public()) {
			x.findings[fmt.Sprintf("epoch %d: the epoch key of replica %d, which is clean, is known: %s", v.Epoch, id, s.How)] = true
		}
	}
	return nil
}

// found are all findings so far.
func (x *intruder) found() []string {
	list := append(x.judge.secrets(&x.loot), slices.Collect(maps.Keys(x.findings))...)
	slices.Sort(list)
	return list
}
