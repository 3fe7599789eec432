package sim

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/reseal-bft/reseal/bft"
)

// Regions are the cloud regions of the wide-area table, and roundTrips the times between them in
// milliseconds: averages measured between AWS regions, table "Latency Between AWS Global Regions"
// as quoted in https://acomputerscientistlearnsaws.blogspot.com/2017/04/aws-regions.html (the mean
// of both directions). Within a region 1 ms is assumed.
var (
	Regions    = []string{"Virginia", "Oregon", "Ireland", "Tokyo", "Sydney"}
	roundTrips = [5][5]float64{
		{1, 87.8, 80.5, 145.3, 229.9},
		{87.8, 1, 137.0, 89.1, 162.1},
		{80.5, 137.0, 1, 212.4, 309.6},
		{145.3, 89.1, 212.4, 1, 103.9},
		{229.9, 162.1, 309.6, 103.9, 1},
	}
)

// WanOptions choose a row of the wide-area table.
type WanOptions struct {
	// N is the number of replicas, dealt round the regions. The slack c is the smallest from 1 on
	// that fits 3f + 2c + 1 = n, or 0.
	N int
	// Regions is how many of the regions are used, 1 to 5.
	Regions int
	// BlockBytes is the payload of a block, and MegabitsPerSecond what a replica can send.
	BlockBytes        int
	MegabitsPerSecond int
	// Blocks is how many blocks are measured.
	Blocks int
}

// WanRow is a row of the wide-area table: medians over blocks and replicas in milliseconds, from
// the proposal to finality at a replica. What is simulated includes signing, combining, a disk sync
// and the time to send blocks; what is computed for HotStuff and PBFT is delay and sending alone.
type WanRow struct {
	N int `json:"n"`
	F int `json:"f"`
	C int `json:"c"`
	// FastMS: all replicas are up. RecoveryMS: one is being recovered and does not lead. SlowMS:
	// one more is down than the fast path bears.
	FastMS        float64 `json:"fast_ms"`
	RecoveryMS    float64 `json:"recovery_ms"`
	RecoveryRatio float64 `json:"recovery_fast_ratio"` // blocks that the fast path made final during the recovery
	SlowMS        float64 `json:"slow_ms"`
	// HotStuffMS is chained HotStuff with one leader, 7 half-rounds; PBFTMS is PBFT from its
	// pre-prepare to commitment, 3 delays, PBFTClientMS with the client's request and its replies,
	// 5, and FastClientMS the fast path with request and reply.
	HotStuffMS   float64 `json:"hotstuff_ms"`
	PBFTMS       float64 `json:"pbft_ms"`
	PBFTClientMS float64 `json:"pbft_client_ms"`
	FastClientMS float64 `json:"fast_client_ms"`
}

// Wan computes one row.
func Wan(o WanOptions) (WanRow, error) {
	size, err := wanSize(o)
	if err != nil {
		return WanRow{}, err
	}
	row := WanRow{N: o.N, F: size.F, C: size.C}
	w := wan{o, size}
	row.FastMS, _ = w.simulate(0)
	row.RecoveryMS, row.RecoveryRatio = w.simulate(1)
	row.SlowMS, _ = w.simulate(size.FastAbsent() + 1)
	row.HotStuffMS, row.PBFTMS = w.hotStuff(), w.pbft()
	client := w.clientDelay()
	row.PBFTClientMS, row.FastClientMS = row.PBFTMS+2*client, row.FastMS+2*client
	return row, nil
}

// wanSize finds f and c for a number of replicas.
func wanSize(o WanOptions) (bft.Size, error) {
	if o.N < 4 || o.N > bft.MaxReplicas {
		return bft.Size{}, fmt.Errorf("n = %d: need 4 to %d", o.N, bft.MaxReplicas)
	}
	if o.Regions < 1 || o.Regions > len(Regions) {
		return bft.Size{}, fmt.Errorf("%d regions: need 1 to %d", o.Regions, len(Regions))
	}
	if o.BlockBytes < 0 || o.BlockBytes > bft.MaxPayload || o.MegabitsPerSecond < 1 || o.Blocks < 1 {
		return bft.Size{}, errors.New("block size, bandwidth or number of blocks is out of bounds")
	}
	for _, c := range []int{1, 2, 3, 0} {
		if rest := o.N - 1 - 2*c; rest >= 3 && rest%3 == 0 {
			return bft.Size{F: rest / 3, C: c}, nil
		}
	}
	return bft.Size{}, fmt.Errorf("n = %d is not 3f + 2c + 1 with c <= 3", o.N)
}

// wan is the setting of one row.
type wan struct {
	WanOptions
	size bft.Size
}

// delay is the way from replica i to j, counted from 0, in milliseconds.
func (w wan) delay(i, j int) float64 {
	if i == j {
		return 0
	}
	return roundTrips[i%w.Regions][j%w.Regions] / 2
}

// sending is the time in milliseconds to put bytes on the wire.
func (w wan) sending(bytes int) float64 {
	return float64(bytes) * 8 / float64(w.MegabitsPerSecond) / 1000
}

// blockDelay is when replica i has the block that leader l sends to all, one after the other.
func (w wan) blockDelay(l, i int) float64 {
	rank := (i - l + w.N) % w.N
	return float64(rank)*w.sending(w.BlockBytes) + w.delay(l, i)
}

// clientDelay is the mean way between a client at some replica's place and another replica.
func (w wan) clientDelay() float64 {
	sum := 0.0
	for i := range w.N {
		for j := range w.N {
			sum += w.delay(i, j)
		}
	}
	return sum / float64(w.N*w.N)
}

// classicQuorum is the quorum of a protocol with n = 3f + 1.
func (w wan) classicQuorum() int { return w.N - (w.N-1)/3 }

// nth returns the n-th smallest value, from 1.
func nth(values []float64, n int) float64 {
	slices.Sort(values)
	return values[n-1]
}

// gather is when replica i has heard of a quorum, each of which spoke at its own time.
func (w wan) gather(i int, spoke func(int) float64) float64 {
	heard := make([]float64, w.N)
	for j := range heard {
		heard[j] = spoke(j) + w.delay(j, i)
	}
	return nth(heard, w.classicQuorum())
}

// pbft is the median time from the pre-prepare to commitment.
func (w wan) pbft() float64 {
	var all []float64
	for l := range w.N {
		prepared := make([]float64, w.N)
		for i := range prepared {
			prepared[i] = w.gather(i, func(j int) float64 { return w.blockDelay(l, j) })
		}
		for i := range w.N {
			all = append(all, w.gather(i, func(j int) float64 { return prepared[j] }))
		}
	}
	return nth(all, (len(all)+1)/2)
}

// hotStuff is the median time from a proposal to its decision: three times out and back, and out.
func (w wan) hotStuff() float64 {
	var all []float64
	for l := range w.N {
		round := w.gather(l, func(j int) float64 { return w.blockDelay(l, j) })
		for i := range w.N {
			all = append(all, 3*round+w.delay(l, i))
		}
	}
	return nth(all, (len(all)+1)/2)
}

// Times of a replica in the wide-area simulation, after FACTS measured on one core: a signature, a
// combination with its check, a disk sync.
const (
	wanSign    = 200 * time.Microsecond
	wanCombine = 2 * time.Millisecond
	wanSync    = time.Millisecond
)

// simulate runs the real core with some replicas down, and returns the median time to finality and
// the ratio of blocks that became final without finalize votes.
func (w wan) simulate(down int) (median, fast float64) {
	run := &wanRun{wan: w, world: newWorld(1), proposed: make(map[bft.Height]time.Duration), free: make([]time.Duration, w.N), cores: make([]*bft.Core, w.N)}
	run.payload = make([]byte, w.BlockBytes)
	run.digest = bft.PayloadDigest(run.payload)
	for i := range w.N - down {
		run.leaders = append(run.leaders, bft.ReplicaID(i+1))
	}
	for i := range run.leaders {
		run.start(i)
	}
	run.world.run(time.Hour, func() bool { return len(run.times) >= w.Blocks*len(run.leaders) })
	if len(run.times) == 0 {
		return math.NaN(), 0
	}
	return nth(run.times, (len(run.times)+1)/2), 1 - float64(run.certain)/float64(len(run.times))
}

// wanRun is one simulation.
type wanRun struct {
	wan
	world    *world
	cores    []*bft.Core
	leaders  []bft.ReplicaID
	free     []time.Duration // when each replica's line is free
	proposed map[bft.Height]time.Duration
	times    []float64
	certain  int // times that needed a finalization
	payload  []byte
	digest   bft.Digest
	timer    [bft.MaxReplicas + 1][bft.TimerResend + 1]int
}

func (r *wanRun) start(i int) {
	core, err := bft.New(bft.Config{
		Size: r.size, Self: bft.ReplicaID(i + 1), Leaders: r.leaders, Window: 1, Voter: true,
		Timeouts: bft.Timeouts{View: 5 * time.Second, ViewMax: time.Minute, Finalize: 150 * time.Millisecond, Idle: 500 * time.Millisecond, Resend: 5 * time.Second, Ahead: time.Minute},
	}, bft.Restored{})
	if err != nil {
		panic(err) // the size was checked
	}
	r.cores[i] = core
	r.act(i, core.Start(r.clock()))
}

func (r *wanRun) clock() bft.Now {
	now := r.world.now.Milliseconds()
	return bft.Now{Mono: now, Wall: startTime + now}
}

func (r *wanRun) later(i int, d time.Duration, ev bft.Event) {
	r.world.after(d, func() { r.act(i, r.cores[i].Step(r.clock(), ev)) })
}

func (r *wanRun) act(i int, effects []bft.Effect) {
	certified := false
	for _, e := range effects {
		switch e := e.(type) {
		case bft.Sign:
			e.Vote.Partial = []byte("partial")
			r.later(i, wanSync+wanSign, bft.Signed{Vote: e.Vote})
		case bft.Combine:
			r.later(i, wanCombine, bft.Combined{Statement: e.Statement, Signature: []byte("certificate")})
		case bft.Verify:
			r.later(i, wanCombine, bft.Verified{Certificate: e.Certificate, From: e.From, OK: true})
		case bft.Broadcast:
			for j := range r.leaders {
				r.send(i, (i+j)%len(r.leaders), e.Message)
			}
		case bft.Send:
			if int(e.To) <= len(r.leaders) {
				r.send(i, int(e.To)-1, e.Message)
			}
		case bft.Propose:
			b := &bft.Block{Header: e.Header, Payload: r.payload}
			b.Header.Payload, b.Time = r.digest, max(e.MinTime, r.clock().Wall)
			r.proposed[b.Height] = r.world.now
			r.later(i, wanSync, bft.Proposed{Block: b})
		case bft.StoreCertificate:
			certified = certified || e.Certificate.Kind == bft.Finalize
		case bft.Finalized:
			r.finalized(e.Block.Height, certified)
			r.later(i, 0, bft.Executed{Height: e.Block.Height})
		case bft.SetTimer:
			r.setTimer(i, e)
		}
	}
}

// finalized measures a block, but for the first few and the far away.
func (r *wanRun) finalized(h bft.Height, certified bool) {
	const warmUp = 5
	if h <= warmUp || len(r.times) >= r.Blocks*len(r.leaders) {
		return
	}
	r.times = append(r.times, float64((r.world.now-r.proposed[h]).Microseconds())/1000)
	if certified {
		r.certain++
	}
}

func (r *wanRun) setTimer(i int, e bft.SetTimer) {
	r.timer[i][e.Timer.Kind]++
	mine := r.timer[i][e.Timer.Kind]
	r.world.after(e.After, func() {
		if r.timer[i][e.Timer.Kind] == mine {
			r.act(i, r.cores[i].Step(r.clock(), bft.Expired{Timer: e.Timer}))
		}
	})
}

// messageBytes is about what a vote or a certificate takes on the wire.
const messageBytes = 150

// send puts a message on the sender's line, which carries one after the other.
func (r *wanRun) send(i, j int, m bft.Message) {
	if i == j {
		return
	}
	bytes := messageBytes
	if b, ok := m.(*bft.Block); ok {
		bytes += len(b.Payload)
	}
	r.free[i] = max(r.free[i], r.world.now) + time.Duration(r.sending(bytes)*float64(time.Millisecond))
	arrival := r.free[i] + time.Duration(r.delay(i, j)*float64(time.Millisecond))
	r.later(j, arrival-r.world.now, bft.Receive{From: bft.ReplicaID(i + 1), Message: m})
}
