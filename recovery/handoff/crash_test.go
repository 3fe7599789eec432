package handoff

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// crashes copies what a crash would leave, before each change of the disk and of the device.
type crashes struct {
	disk   *vfs.MemFS
	device *memory

	mu     sync.Mutex
	stage  string // what is being done; empty: nothing is copied
	points []crash
}

type crash struct {
	stage  string
	disk   *vfs.MemFS
	device *memory
}

func (c *crashes) before() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stage != "" {
		c.points = append(c.points, crash{c.stage, c.disk.CrashClone(vfs.CrashCloneCfg{}), c.device.clone()})
	}
}

func (c *crashes) during(stage string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stage = stage
}

// A crash at any step of a handoff, of learning of its epoch, and of the end of the one before
// leaves what is needed to go on: in the old epoch before it has ended, in the new one afterwards,
// and both until the new one has signed.
func TestACrashAtAnyStepLeavesWhatIsNeeded(t *testing.T) {
	x := newCluster(t, 1, 0)
	m := x.machines[1]
	x.halt(m)
	c := &crashes{disk: vfs.NewCrashableMem(), device: m.device}
	m.fs = errorfs.Wrap(c.disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			c.before()
		}
		return nil
	}))
	m.device.before = c.before
	x.boot(m)
	old := x.handoff()
	before := x.View()
	x.open([]bft.ReplicaID{2})
	c.during("complete")
	x.follow()
	c.during("")
	chosen := x.View()
	next := x.begin()
	c.during("learn")
	x.learn()
	c.during("signed")
	x.signed()
	c.during("")
	stages := map[string]int{}
	for n, p := range c.points {
		at := fmt.Sprintf("%s, point %d", p.stage, n)
		stages[p.stage]++
		k, s := openKeeper(t, p.device, p.disk, m.id)
		log := &told{before, old}
		alone := NewParty(Config{
			Cluster: testCluster, Self: m.id, Keeper: k, Network: deaf{}, State: log, Founding: x.founding, Log: slog.New(slog.DiscardHandler),
		})
		require.NoError(t, alone.Learn(old), at)
		if p.stage == "complete" {
			require.NotNil(t, k.Keys(old), "%s: the old epoch", at)
			require.NotNil(t, k.PrivateKey(next.Member(m.id).EpochKey), "%s: the attested key", at)
		} else {
			log.v, log.m = x.View(), next
			require.NoError(t, alone.Learn(next), at)
			require.True(t, p.stage != "learn" || k.before != nil, "%s: the share of the epoch before", at)
			require.NotNil(t, k.Keys(next), "%s: the new epoch", at)
			require.NoError(t, k.Signed(next.Epoch), at)
			_, err := p.device.Unseal(uint64(old.Epoch))
			require.Error(t, err, at)
		}
		k.Close()
		require.NoError(t, s.Close())
	}
	require.NotEmpty(t, chosen.Dealings)
	for _, stage := range []string{"complete", "learn", "signed"} {
		require.Positive(t, stages[stage], stage)
	}
}

// told is what a log says, and deaf a network without anybody.
type told struct {
	v *governance.View
	m *replica.Membership
}

func (l *told) View() *governance.View          { return l.v }
func (l *told) Membership() *replica.Membership { return l.m }

type deaf struct{}

func (deaf) Handle(string, transport.Method) {}

func (deaf) Call(context.Context, bft.ReplicaID, string, []byte) ([]byte, error) {
	return nil, errors.New("nobody is there")
}

func (deaf) CallUnder(context.Context, tls.Certificate, bft.ReplicaID, string, []byte) ([]byte, error) {
	return nil, errors.New("nobody is there")
}

// A keystore that is behind the log's state catches up, one that is ahead is not turned back, and
// in neither case is anything used of another epoch.
func TestAKeystoreThatIsNotWhereTheLogIs(t *testing.T) {
	x := newCluster(t, 1, 0)
	first := x.handoff()
	m := x.machines[0]
	x.halt(m)
	behind := m.device.clone()
	k, s := openKeeper(t, behind, m.fs, m.id)
	require.NoError(t, k.Learn(later(x, 7)))
	require.EqualValues(t, 7, k.Holding().Sealed, "the device follows to what is known to have signed")
	require.Nil(t, k.Keys(later(x, 7)))
	k.Close()
	require.NoError(t, s.Close())

	ahead := m.device.clone()
	require.NoError(t, ahead.Advance(9))
	k, s = openKeeper(t, ahead, m.fs, m.id)
	require.NoError(t, k.Learn(first))
	require.Nil(t, k.Keys(first))
	require.EqualValues(t, 9, k.Holding().Sealed)
	require.False(t, k.Holding().Share)
	_, may := k.dealt(1)
	require.False(t, may)
	k.Close()
	require.NoError(t, s.Close())
}

// clone is the device as it is now: what a power cut at this moment leaves.
func (d *memory) clone() *memory {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &memory{epoch: d.epoch, sealed: maps.Clone(d.sealed)}
}
