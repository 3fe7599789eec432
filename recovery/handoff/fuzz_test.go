package handoff

import (
	"bytes"
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// Whatever a peer calls with while a handoff runs: there is an answer or an error, what is allocated
// for it is bounded, and a part or a point is given to nobody but the holder of the key that the log
// names.
func FuzzCalls(f *testing.F) {
	x := newCluster(f, 1, 0)
	x.handoff()
	x.open([]bft.ReplicaID{1}, 2)
	v, dealer := x.View(), x.machines[3]
	x.follow(x.machines[0], x.machines[2], dealer)
	methods := []string{methodPart, methodAcknowledge, methodCommitment, methodPoint, methodSharing}
	name, chosen := running(dealer).name(), x.View().Dealings[0].Commitment
	for i := range methods {
		for _, data := range [][]byte{{}, name, chosen[:], append(name, make([]byte, 48)...)} {
			for _, from := range []uint8{1, 2, 3} {
				f.Add(uint8(i), from, data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, method, from uint8, data []byte) {
		called := methods[int(method)%len(methods)]
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // who calls waits for nothing
		who := &transport.Sender{ID: bft.ReplicaID(from)}
		if m := v.Member(who.ID); m != nil {
			who.EpochKey = m.EpochKey // that of before, if it is to have another one
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		answer, err := x.call(ctx, who, dealer.id, called, data)
		runtime.ReadMemStats(&after)
		require.True(t, err == nil || answer == nil)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(8<<20+64*len(data)), "allocated")
		if secret := called == methodPart || called == methodPoint; secret && (from < 3 || from > 4) {
			require.Error(t, err, "replica %d has lapsed, is under its key of before, or is none", from)
		}
	})
}

// Whatever the disk holds as a part: it is none, or one that was put there under the vault key.
func FuzzStoredPart(f *testing.F) {
	x := newCluster(f, 1, 0)
	x.handoff()
	x.open(nil)
	m := x.machines[0]
	x.follow(x.machines...)
	to := running(m).to
	var key [32]byte
	var good [][]byte
	for _, d := range m.keeper.held {
		name := vaultName(to, &key)
		require.NoError(f, shelf{m.store}.storePart(&key, d))
		require.NoError(f, m.store.EachMeta(name, func(_ string, value []byte) error {
			good = append(good, bytes.Clone(value))
			f.Add(good[len(good)-1])
			return nil
		}))
	}
	require.NotEmpty(f, good)
	f.Fuzz(func(t *testing.T, value []byte) {
		d, err := readPart(&key, to, vaultName(to, &key), value)
		if err == nil {
			require.NotEqual(t, governance.Round(0), d.round)
			require.NotNil(t, d.commitment)
			require.NotNil(t, d.part)
		}
	})
}
