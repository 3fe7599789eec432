package kv

import (
	"bufio"
	"encoding/binary"
	"errors"
	flags "flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/budget"
)

// What `make state` sets.
var (
	fillMiB   = flags.Int64("fill", 24, "MiB of values to put")
	memoryMiB = flags.Int64("memory", 0, "MiB that the process may take; 0: not measured")
	valueSize = flags.Int("value", 1000, "bytes of a value")
)

// TestMoreThanMemory fills a store with more than it may have in memory, writes a snapshot of it
// while it goes on, and restores that. It prints what it took.
func TestMoreThanMemory(t *testing.T) {
	opts, most := Options{}, int64(0)
	if *memoryMiB > 0 {
		table, err := budget.Of(*memoryMiB<<20, bft.Size{F: 1})
		require.NoError(t, err)
		opts.Memory = table.State
		most = table.State + 64<<20 + *memoryMiB<<20/12       // the process, and what the collector has for all
		debug.SetMemoryLimit(most - table.State/4 - 2*64<<20) // without the database's, and what is no heap
	}
	dir := filepath.Join(t.TempDir(), "state")
	s, err := Open(dir, opts)
	require.NoError(t, err)
	keys := int(*fillMiB << 20 / int64(*valueSize))
	rng := rand.New(rand.NewPCG(1, 2))
	value := func(key, version uint64) []byte {
		var seed [32]byte
		binary.BigEndian.PutUint64(seed[:], key)
		binary.BigEndian.PutUint64(seed[8:], version)
		out := make([]byte, *valueSize)
		_, _ = rand.NewChaCha8(seed).Read(out)
		return out
	}
	height := bft.Height(0)
	var took []time.Duration
	written := bytesWritten(t)
	write := func(n int, key func(i int) uint64, version uint64) {
		ops := make([]bft.Operation, n)
		for i := range ops {
			k := key(i)
			ops[i].Data, err = Put(fmt.Appendf(nil, "key %d", k), value(k, version))
			require.NoError(t, err)
		}
		height++
		began := time.Now()
		apply(s, height, ops)
		took = append(took, time.Since(began))
	}
	const batch = 500
	report := func(what string, n int, began time.Time) {
		slices.Sort(took)
		t.Logf("%-10s %9d keys in %7.1f s: %8.0f a second; a block of %d: median %v, 99%% %v, longest %v; written %.1f times; peak memory %d MiB", what, n, time.Since(began).Seconds(),
			float64(n)/time.Since(began).Seconds(), batch, took[len(took)/2].Round(time.Microsecond), took[len(took)*99/100].Round(time.Microsecond),
			took[len(took)-1].Round(time.Microsecond), float64(bytesWritten(t)-written)/float64(n**valueSize), peakMemory(t)>>20)
		took, written = took[:0], bytesWritten(t)
	}
	began := time.Now()
	for from := 0; from < keys; from += batch {
		write(min(batch, keys-from), func(i int) uint64 { return uint64(from + i) }, 0)
	}
	report("fill", keys, began)
	for range 20 {
		write(batch, func(int) uint64 { return rng.Uint64N(uint64(keys)) }, 1)
	}
	report("overwrite", 20*batch, time.Now().Add(-total(took)))

	// The snapshot is written while the service goes on.
	old := s.State()
	file, err := os.Create(filepath.Join(t.TempDir(), "snapshot"))
	require.NoError(t, err)
	done := make(chan error, 1)
	began = time.Now()
	go func() {
		_, err := old.WriteTo(file)
		done <- err
	}()
	wrote := 0
	for finished := false; !finished; {
		select {
		case err = <-done:
			finished = true
		default:
			write(batch, func(int) uint64 { return rng.Uint64N(uint64(keys)) }, 2)
			wrote += batch
		}
	}
	require.NoError(t, err)
	size, err := file.Seek(0, io.SeekEnd)
	require.NoError(t, err)
	written += size
	report("meanwhile", max(1, wrote), began)
	t.Logf("snapshot of %d MiB written in %.1f s", size>>20, time.Since(began).Seconds())

	began = time.Now()
	const reads = 2000
	for range reads {
		k := rng.Uint64N(uint64(keys))
		key := fmt.Appendf(nil, "key %d", k)
		answer, proof, err := old.Query(key)
		require.NoError(t, err)
		got, found, err := VerifyQuery(old.Root(), key, answer, proof)
		require.NoError(t, err)
		require.True(t, found)
		require.True(t, string(got) == string(value(k, 0)) || string(got) == string(value(k, 1)))
	}
	t.Logf("%d reads of an old state with proofs, verified: %.0f a second; peak memory %d MiB; on disk %d MiB", reads, reads/time.Since(began).Seconds(),
		peakMemory(t)>>20, s.disk.db.Metrics().DiskSpaceUsage()>>20)

	began = time.Now()
	require.NoError(t, s.wait())
	root := s.State().Root()
	require.True(t, s.Keep())
	require.NoError(t, s.wait())
	t.Logf("kept in %.2f s", time.Since(began).Seconds())
	require.NoError(t, s.Close())
	began = time.Now()
	s, err = Open(dir, opts)
	require.NoError(t, err)
	require.True(t, s.Resume(root))
	t.Logf("went on from what was kept in %.2f s", time.Since(began).Seconds())
	require.NoError(t, s.Close())

	began = time.Now()
	_, err = file.Seek(0, io.SeekStart)
	require.NoError(t, err)
	restored, err := Open(filepath.Join(t.TempDir(), "restored"), opts)
	require.NoError(t, err)
	require.NoError(t, restored.Restore(bufio.NewReaderSize(file, 1<<16)))
	require.Equal(t, old.Root(), restored.State().Root())
	t.Logf("restored in %.1f s; peak memory %d MiB", time.Since(began).Seconds(), peakMemory(t)>>20)
	require.NoError(t, errors.Join(restored.Close(), file.Close()))
	if most > 0 {
		require.Less(t, peakMemory(t), most)
	}
}

func total(times []time.Duration) (sum time.Duration) {
	for _, d := range times {
		sum += d
	}
	return sum
}

// bytesWritten returns what the process has given the disk to write, in bytes.
func bytesWritten(t *testing.T) int64 { return read(t, "/proc/self/io", "\nwrite_bytes:") }

// peakMemory returns the most that the process ever had in memory, in bytes.
func peakMemory(t *testing.T) int64 { return read(t, "/proc/self/status", "VmHWM:") << 10 }

// read returns the number behind a name in a file of the system's.
func read(t *testing.T, file, name string) (n int64) {
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(content), name)
	require.True(t, found)
	_, err = fmt.Sscan(rest, &n)
	require.NoError(t, err)
	return n
}
