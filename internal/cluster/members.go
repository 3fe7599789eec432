package cluster

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// Members asks the replicas of a cluster how they are. Safe for concurrent use.
type Members struct {
	genesis *governance.Genesis
	peers   []transport.Peer
	conns   []*transport.Client
}

// Member is what one replica said of itself, or why it said nothing.
type Member struct {
	ID   bft.ReplicaID `json:"id"`
	Info *Info         `json:"info,omitempty"`
	Err  string        `json:"error,omitempty"`
	// Unproven is why it is not known to be the replica's own word, as of now; empty when it is.
	Unproven string `json:"unproven,omitempty"`

	asked, heard time.Time // by the clock of who asks
}

// Dial prepares connections to the replicas of the genesis, whose identities it pins. It does not
// wait for them.
func Dial(genesis *governance.Genesis) (*Members, error) {
	peers, err := peersOf(genesis)
	if err != nil {
		return nil, err
	}
	m := &Members{genesis: genesis, peers: peers}
	for _, peer := range peers {
		conn, err := transport.Dial(genesis.ClusterID(), peer)
		if err != nil {
			m.Close()
			return nil, err
		}
		m.conns = append(m.conns, conn)
	}
	return m, nil
}

func peersOf(genesis *governance.Genesis) ([]transport.Peer, error) {
	var peers []transport.Peer
	for _, member := range genesis.Members {
		key, err := x509.ParsePKIXPublicKey(member.Identity)
		identity, ok := key.(*ecdsa.PublicKey)
		if err != nil || !ok {
			return nil, fmt.Errorf("genesis: the identity of replica %d is not an ECDSA key", member.ID)
		}
		peers = append(peers, transport.Peer{ID: member.ID, Address: member.Address, Identity: identity})
	}
	return peers, nil
}

// Close ends the connections.
func (m *Members) Close() {
	for _, conn := range m.conns {
		_ = conn.Close() // nothing is in flight
	}
}

// Ask asks all replicas at once. The answers come by replica, as far as ctx allows.
func (m *Members) Ask(ctx context.Context) []Member {
	members := make([]Member, len(m.conns))
	var asked sync.WaitGroup
	for i, conn := range m.conns {
		asked.Go(func() {
			members[i].ID = m.peers[i].ID
			members[i].ask(ctx, conn)
		})
	}
	asked.Wait()
	return members
}

// vouchedWithin is for how long a replica that proved to have its identity key is taken for who has it.
const vouchedWithin = time.Minute

// ask asks one replica. One that cannot prove itself, as its device does not answer, is heard all
// the same, by people.
func (m *Member) ask(ctx context.Context, conn *transport.Client) {
	m.asked = time.Now()
	answer, err := conn.CallVouched(ctx, vouchedWithin, methodInfo, nil)
	if err != nil {
		m.Unproven = err.Error()
		answer, err = conn.Call(ctx, methodInfo, nil)
	}
	if err == nil {
		m.Info, err = parseInfo(answer)
	}
	m.heard = time.Now()
	if err != nil {
		m.Err, m.Unproven = err.Error(), ""
	}
}

// ErrNoAgreement says that fewer than f + 1 replicas gave the same answer.
var ErrNoAgreement = errors.New("fewer than f + 1 replicas agree on the state of the cluster: see `reseal status` for who answers, and start the others")

// Agreed returns the latest state of the cluster that f + 1 replicas told alike, each of which has
// proved that it has its identity key: at least one of them is correct.
func (m *Members) Agreed(members []Member) (*State, error) {
	told := map[string]int{}
	var latest *State
	for _, member := range members {
		if member.Info == nil || member.Unproven != "" {
			continue
		}
		raw := string(member.Info.State)
		if told[raw]++; told[raw] != m.genesis.F+1 {
			continue
		}
		state, err := parseState(member.Info.State, len(m.peers))
		if err != nil {
			return nil, err
		}
		if latest == nil || state.LaterThan(latest) {
			latest = state
		}
	}
	if latest == nil {
		return nil, ErrNoAgreement
	}
	return latest, nil
}

// Twice returns which replicas say that two processes run as the replica with the given ID.
func Twice(members []Member, id bft.ReplicaID) (by []bft.ReplicaID) {
	for _, member := range members {
		if member.Info != nil && slices.Contains(member.Info.Twice, id) {
			by = append(by, member.ID)
		}
	}
	return by
}

// Single fails when f + 1 replicas say that two processes run as one replica, each of which has
// proved that it has its identity key: both vote. Liars alone cannot make it fail. A Byzantine
// replica that shows certificates in turn can, of itself: it is not to be told from two processes,
// and what is to be done is the same.
func (m *Members) Single(members []Member) error {
	proven := slices.DeleteFunc(slices.Clone(members), func(member Member) bool { return member.Unproven != "" })
	for _, peer := range m.peers {
		if by := Twice(proven, peer.ID); len(by) > m.genesis.F {
			return fmt.Errorf("two processes ran as replica %d within the last minute, and may vote against each other: stop both, and start the one that is meant to run", peer.ID)
		}
	}
	return nil
}

// ClocksOff returns by how much clocks are ahead of most others' (negative: behind), of those for
// which that is more than the genesis allows, whatever the clock of who asks says. Such a replica
// proposes what the others refuse, or refuses what they propose, and need not notice.
func (m *Members) ClocksOff(members []Member) map[bft.ReplicaID]time.Duration {
	const most = 100 * 365 * 24 * time.Hour // differences of durations do not overflow
	type reading struct {
		id            bft.ReplicaID
		ahead, within time.Duration
	}
	var readings []reading
	for _, member := range members {
		if member.Info == nil || member.Info.Clock == 0 {
			continue
		}
		within := member.heard.Sub(member.asked) / 2 // it was read some time between
		ahead := time.UnixMilli(member.Info.Clock).Sub(member.asked.Add(within))
		readings = append(readings, reading{member.ID, max(-most, min(ahead, most)), within})
	}
	off := make(map[bft.ReplicaID]time.Duration)
	if len(readings) <= 2*m.genesis.F { // too few for the one in the middle to be between correct ones
		return off
	}
	slices.SortFunc(readings, func(a, b reading) int { return cmp.Compare(a.ahead, b.ahead) })
	middle := readings[len(readings)/2]
	for _, r := range readings {
		if ahead := r.ahead - middle.ahead; ahead.Abs() > time.Duration(m.genesis.Timeouts.Ahead)+r.within+middle.within {
			off[r.id] = ahead
		}
	}
	return off
}

// Serves says why the service stands still: by what the replicas say, fewer vote than a quorum. What
// those agree on that are left is true, and of the past.
func (m *Members) Serves(members []Member) error {
	voters := 0
	for _, member := range members {
		if member.Info != nil && member.Info.Voter && !member.Info.Diverged {
			voters++
		}
	}
	if q := m.genesis.Size().Quorum(); voters < q {
		return fmt.Errorf("the service stands still: %d replicas vote, and it takes %d: start those that do not answer, and see above what the others lack", voters, q)
	}
	return nil
}
