package cluster

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/client"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/internal/files"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/threshold"
)

// GroupKey is the path of the group public key, once a client has learnt it.
func (d Dir) GroupKey() string { return filepath.Join(string(d), "group.key") }

// Access is how a program uses a cluster: it asks members how they are, and gives requests to
// clients and orders to the log.
type Access struct {
	Genesis *governance.Genesis
	Members *Members
	// Verifier verifies under the group public key; clients share it.
	Verifier request.GroupKey
	dir      Dir
	key      *threshold.PublicKey

	mu      sync.Mutex
	clients []*client.Client
}

// Connect prepares the use of a cluster. The group key is the one that is kept in its directory,
// or, at first, the one that f + 1 replicas tell, which is then kept there.
func Connect(ctx context.Context, dir Dir) (*Access, error) {
	genesis, err := governance.Load(dir.Genesis())
	if err != nil {
		return nil, err
	}
	members, err := Dial(genesis)
	if err != nil {
		return nil, err
	}
	key, err := groupKeyOf(ctx, dir, members)
	if err != nil {
		members.Close()
		return nil, err
	}
	return &Access{Genesis: genesis, Members: members, Verifier: client.NewVerifier(key), dir: dir, key: key}, nil
}

// Close ends the connections to the members, and keeps the height that the clients were shown for
// those who come after.
func (a *Access) Close() {
	a.Members.Close()
	a.mu.Lock()
	defer a.mu.Unlock()
	seen := bft.Height(0)
	for _, c := range a.clients {
		seen = max(seen, c.Seen())
	}
	if before, err := readSeen(a.dir, a.Genesis.ClusterID()); err == nil && seen > before {
		_ = writeSeen(a.dir, a.Genesis.ClusterID(), seen) // the next client warns of less; a read-only directory is no failure of this one
	}
}

// NewClient makes a client with a key of its own. It refuses what is older than what earlier
// clients of this directory were shown.
func (a *Access) NewClient(random io.Reader) (*client.Client, error) {
	_, key, err := ed25519.GenerateKey(random)
	if err != nil {
		return nil, err
	}
	seen, err := readSeen(a.dir, a.Genesis.ClusterID())
	if err != nil {
		return nil, err
	}
	c, err := client.New(client.Config{
		Cluster: a.Genesis.ClusterID(), Peers: a.Members.peers, Size: a.Genesis.Size(), GroupKey: a.Verifier, Key: key, Seen: seen,
	})
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.clients = append(a.clients, c)
	return c, nil
}

// State asks the replicas for the state of the cluster.
func (a *Access) State(ctx context.Context) (*State, error) {
	return a.Members.Agreed(a.Members.Ask(ctx))
}

// CheckGroupKey compares the group key that is kept in the directory with the one that f + 1
// replicas tell: under another one no reply can be verified, for ever. Nil if they tell none.
func (a *Access) CheckGroupKey(ctx context.Context) error {
	state, err := a.State(ctx)
	if err != nil {
		return nil // nobody says that it is another
	}
	return a.compareGroupKey(state)
}

func (a *Access) compareGroupKey(state *State) error {
	if state.GroupKey == "" || state.GroupKey == hex.EncodeToString(a.key.Bytes()) {
		return nil
	}
	return fmt.Errorf("%s is not the key that f + 1 replicas tell: if it came from another cluster, or an earlier one of this directory, remove it, and they are asked again; "+
		"if it is this cluster's, believe it and not them, and find out who they are", a.dir.GroupKey())
}

// Order has an operator's order executed, signed with the key in the cluster's directory. A refusal
// by the log is an error.
func (a *Access) Order(ctx context.Context, c *client.Client, body governance.OrderBody) error {
	key, err := OperatorKeyOf(a.dir)
	if err != nil {
		return err
	}
	state, err := a.State(ctx)
	if err != nil {
		return err
	}
	order := &governance.Order{Sequence: state.OrderSequence + 1, Body: body}
	if err := order.Sign(a.Genesis, key); err != nil {
		return err
	}
	operation, err := governance.Encode(order)
	if err != nil {
		return err
	}
	results, err := c.SubmitSystem(ctx, operation)
	if err != nil {
		return err
	}
	result, err := governance.ParseResult(results[0])
	if err != nil {
		return err
	}
	if result.Refusal != nil {
		return fmt.Errorf("the cluster refused the order: %w", result.Refusal)
	}
	return nil
}

func groupKeyOf(ctx context.Context, dir Dir, members *Members) (*threshold.PublicKey, error) {
	text, err := files.Read(dir.GroupKey(), maxFile)
	if err == nil {
		return parseGroupKey(dir, text)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := client.GroupKey(ctx, members.genesis.ClusterID(), members.peers, members.genesis.F)
	if err != nil {
		return nil, err
	}
	err = writeNew(dir.GroupKey(), fmt.Appendf(nil, "%x\n", key.Bytes()), 0o644)
	if errors.Is(err, fs.ErrExist) { // another client was faster
		err = nil
	}
	return key, err
}

func parseGroupKey(dir Dir, text []byte) (*threshold.PublicKey, error) {
	raw, err := hex.DecodeString(string(bytes.TrimSpace(text)))
	if err == nil {
		var key *threshold.PublicKey
		if key, err = threshold.ParsePublicKey(raw); err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("%s does not hold a group key (%w): remove it, and the replicas are asked again", dir.GroupKey(), err)
}
