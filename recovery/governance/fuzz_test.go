package governance

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/recovery/attest"
)

// operations are one of each kind.
func (c *cluster) operations() []Operation {
	_, dealings := c.deal(1)
	return []Operation{
		c.evidence(1), dealings[0], c.equivocate(2),
		c.order(&StartRound{}), c.order(&StartRound{Due: []bft.ReplicaID{3, 1}}), c.order(c.approve(c.genesis.Attestation.Approved[0])),
		c.order(c.revoke("v1")), c.presence(2), c.order(&Quarantine{Replica: 2, Reason: "odd"}), c.order(&Release{Replica: 2}),
	}
}

func TestOperationsRoundTrip(t *testing.T) {
	for _, op := range inEpochOneSeed(t).operations() {
		b, err := Encode(op)
		require.NoError(t, err)
		again, err := Parse(b)
		require.NoError(t, err)
		require.Equal(t, op, again)
		for cut := range len(b) {
			_, err := Parse(b[:cut])
			require.Error(t, err)
		}
		_, err = Parse(append(b, 0))
		require.Error(t, err)
	}
}

func inEpochOneSeed(t *testing.T) *cluster {
	c := inEpoch1(t)
	c.block()
	return c
}

// FuzzParse: whatever parses re-encodes to the same bytes, and nothing panics.
func FuzzParse(f *testing.F) {
	seeds := fuzzSeeds(f)
	for _, b := range seeds {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if op, err := Parse(b); err == nil {
			again, err := Encode(op)
			require.NoError(t, err)
			require.Equal(t, b, again)
		}
		if e, err := attest.ParseEvidence(b); err == nil {
			again, err := e.Encode()
			require.NoError(t, err)
			require.Equal(t, b, again)
		}
		if r, err := ParseResult(b); err == nil {
			require.Equal(t, b, r.Encode())
		}
	})
}

// FuzzRestore: a snapshot that is accepted is canonical, and the state can go on from it.
func FuzzRestore(f *testing.F) {
	genesis, err := Load(filepath.Join("testdata", "genesis.json"))
	require.NoError(f, err)
	snapshots, err := filepath.Glob(filepath.Join("testdata", "snapshot-*"))
	require.NoError(f, err)
	require.NotEmpty(f, snapshots)
	for _, path := range snapshots {
		b, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := New(genesis)
		require.NoError(t, err)
		root := s.Root()
		if s.Restore(b) != nil {
			require.Equal(t, root, s.Root())
			return
		}
		require.Equal(t, b, s.Snapshot())
		goOn(t, s)
	})
}

// goOn drives a state through blocks in which time passes.
func goOn(t *testing.T, s *State) {
	block := replica.BlockInfo{Epoch: s.Membership().Epoch, Height: 1 << 40, Time: 1 << 45}
	for range 4 {
		block.Height++
		block.Time += 1 << 30
		s.Apply(block, []bft.Operation{{Data: []byte{1}}})
		if s.HandoffReady() {
			s.EndEpoch(block)
			block.Epoch++
		}
	}
	require.NotEmpty(t, s.Membership().Leaders)
	_, err := json.Marshal(s.View())
	require.NoError(t, err)
	again, err := New(s.genesis)
	require.NoError(t, err)
	require.NoError(t, again.Restore(s.Snapshot()))
	require.Equal(t, s.Root(), again.Root())
}

func FuzzGenesis(f *testing.F) {
	b, err := os.ReadFile(filepath.Join("testdata", "genesis.json"))
	require.NoError(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := ParseGenesis(b)
		if err != nil {
			return
		}
		text, err := json.Marshal(g)
		require.NoError(t, err)
		again, err := ParseGenesis(text)
		require.NoError(t, err)
		require.Equal(t, g.ClusterID(), again.ClusterID())
		_, err = New(g)
		require.NoError(t, err)
	})
}

// fuzzSeeds are operations as they were once sent.
func fuzzSeeds(f *testing.F) [][]byte {
	paths, err := filepath.Glob(filepath.Join("testdata", "operation-*"))
	require.NoError(f, err)
	require.NotEmpty(f, paths)
	var out [][]byte
	for _, path := range paths {
		b, err := os.ReadFile(path)
		require.NoError(f, err)
		out = append(out, b)
		if operationKind(b[0]) == kindAttest {
			out = append(out, b[3:]) // the evidence alone
		}
	}
	return append(out, []byte{0}, append([]byte{byte(attest.ReasonPCR)}, "PCR 14 is not approved"...))
}

func TestSnapshotOfAnotherClusterIsRefused(t *testing.T) {
	a, b := newCluster(t), newCluster(t)
	require.ErrorContains(t, a.state.Restore(b.state.Snapshot()), "of cluster")
	require.Error(t, a.state.Restore(nil))
	require.Error(t, a.state.Restore(append(a.state.Snapshot(), 0)))
}
