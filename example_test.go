package reseal_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/keystore/device"
	"github.com/reseal-bft/reseal/recovery"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// example: what README.md shows begins here.

// counter is a replicated service: it counts the bytes that clients send.
type counter struct{ sum uint64 }

func (c *counter) Apply(_ bft.Height, _ int64, operations []bft.Operation, results *bft.Results) error {
	for _, operation := range operations {
		c.sum += uint64(len(operation.Data))
		results.Add(total(c.sum).bytes())
	}
	return nil
}

func (c *counter) State() bft.State          { return total(c.sum) }
func (c *counter) Restore(r io.Reader) error { return binary.Read(r, binary.BigEndian, &c.sum) }

// total is an immutable state of the counter.
type total uint64

func (t total) Root() bft.Digest                               { return sha256.Sum256(t.bytes()) }
func (t total) Query([]byte) (answer, proof []byte, err error) { return t.bytes(), nil, nil }
func (t total) WriteTo(w io.Writer) (int64, error)             { return 8, binary.Write(w, binary.BigEndian, t) }
func (t total) bytes() []byte                                  { return binary.BigEndian.AppendUint64(nil, uint64(t)) }

// serve runs one replica of the counter until ctx ends. Recovery rounds, attestation and new shares
// are the node's business.
func serve(ctx context.Context, genesisFile, keystoreURI, dir string, self bft.ReplicaID) error {
	genesis, err := governance.Load(genesisFile)
	if err != nil {
		return err
	}
	keys, err := device.Open(ctx, keystoreURI)
	if err != nil {
		return err
	}
	defer keys.Close()
	node, err := recovery.Start(ctx, recovery.NodeConfig{Genesis: genesis, Self: self, Dir: dir, Keystore: keys, Application: &counter{}})
	if err != nil {
		return err
	}
	defer node.Close()
	return node.Wait()
}

// example: what README.md shows ends here.

// TestEmbedding runs four replicas of the counter in this process, and a client that verifies what
// they answer.
func TestEmbedding(t *testing.T) {
	dir := cluster.Dir(filepath.Join(t.TempDir(), "cluster"))
	_, err := cluster.Create(t.Context(), cluster.Plan{
		Dir: dir, Size: bft.Size{F: 1}, Keystore: cluster.File, Binary: os.Args[0], Config: cluster.DefaultConfig, RoundDeadline: time.Minute, Rand: rand.Reader,
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	replicas, ctx := errgroup.WithContext(ctx)
	defer func() {
		stop()
		require.NoError(t, replicas.Wait())
	}()
	for id := bft.ReplicaID(1); id <= 4; id++ {
		home := dir.Replica(id)
		uri := "file:" + home.Keystore() + "?passphrase-source=file:" + filepath.Join(string(home), "passphrase")
		replicas.Go(func() error { return serve(ctx, dir.Genesis(), uri, home.Store(), id) })
	}

	var access *cluster.Access
	require.Eventually(t, func() bool {
		access, err = cluster.Connect(ctx, dir)
		return err == nil
	}, time.Minute, 20*time.Millisecond)
	defer access.Close()
	client, err := access.NewClient(rand.Reader)
	require.NoError(t, err)
	defer client.Close()
	results, err := client.Submit(ctx, []byte("four"), []byte("and six"))
	require.NoError(t, err)
	require.Equal(t, [][]byte{total(4).bytes(), total(11).bytes()}, results)
}

// TestReadmeShowsThisExample keeps README.md and this file the same.
func TestReadmeShowsThisExample(t *testing.T) {
	source, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	_, example, found := strings.Cut(string(source), "// example: what README.md shows begins here.\n")
	require.True(t, found)
	example, _, found = strings.Cut(example, "// example: what README.md shows ends here.\n")
	require.True(t, found)
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	require.Contains(t, string(readme), "```go\n"+strings.TrimSpace(example)+"\n```\n", "README.md: copy the example")
}
