package cluster

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery"
	"github.com/reseal-bft/reseal/threshold"
)

// Members asks the replicas of a cluster how they are. Safe for concurrent use.
type Members struct {
	genesis *recovery.Genesis
	peers   []transport.Peer
	conns   []*transport.Client
}

// Member is what one replica said of itself, or why it said nothing.
type Member struct {
	ID   bft.ReplicaID `json:"id"`
	Info *Info         `json:"info,omitempty"`
	Err  string        `json:"error,omitempty"`
}

// Dial prepares connections to the replicas of the genesis, whose identities it pins. It does not wait for them.
func Dial(genesis *recovery.Genesis) (*Members, error) {
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

func peersOf(genesis *recovery.Genesis) ([]transport.Peer, error) {
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
			if info, err := ask(ctx, conn); err != nil {
				members[i].Err = err.Error()
			} else {
				members[i].Info = info
			}
		})
	}
	asked.Wait()
	return members
}

func ask(ctx context.Context, conn *transport.Client) (*Info, error) {
	answer, err := conn.Call(ctx, methodInfo, nil)
	if err != nil {
		return nil, err
	}
	return parseInfo(answer)
}

// ErrNoAgreement says that fewer than f + 1 replicas gave the same answer.
var ErrNoAgreement = errors.New("fewer than f + 1 replicas agree on the state of the cluster: see `reseal status` for who answers, and start the others")

// Agreed returns the latest state of the cluster that f + 1 replicas told alike: at least one of them is correct.
func (m *Members) Agreed(members []Member) (*State, error) {
	told := map[string]int{}
	var latest *State
	for _, member := range members {
		if member.Info == nil {
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
		if latest == nil || state.laterThan(latest) {
			latest = state
		}
	}
	if latest == nil {
		return nil, ErrNoAgreement
	}
	return latest, nil
}

// GroupKey is the path of the group public key, once a client has learnt it.
func (d Dir) GroupKey() string { return filepath.Join(string(d), "group.key") }

// ErrNoGroupKey says that the group key is not generated yet.
var ErrNoGroupKey = errors.New("the replicas have not generated the group key yet: start at least a quorum of them, and try again in a moment")

// GroupKeyOf returns the cluster's public key: the one that is kept in its directory, or, at first, the one that f + 1 replicas tell, which is then
// kept there.
func (m *Members) GroupKeyOf(ctx context.Context, dir Dir) (*threshold.PublicKey, error) {
	text, err := os.ReadFile(dir.GroupKey())
	if err == nil {
		key, err := parseGroupKey(string(bytes.TrimSpace(text)))
		if err != nil {
			return nil, fmt.Errorf("%s: %w: remove it, and the key is asked for again", dir.GroupKey(), err)
		}
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	view, err := m.Agreed(m.Ask(ctx))
	if err != nil {
		return nil, err
	}
	if view.GroupKey == "" {
		return nil, ErrNoGroupKey
	}
	key, err := parseGroupKey(view.GroupKey)
	if err != nil {
		return nil, err
	}
	if err := writeNew(dir.GroupKey(), []byte(view.GroupKey+"\n"), 0o644); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return key, nil
}

func parseGroupKey(text string) (*threshold.PublicKey, error) {
	raw, err := hex.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("group key: %w", err)
	}
	return threshold.ParsePublicKey(raw)
}
