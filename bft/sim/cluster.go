package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/reseal-bft/reseal/bft"
)

// Options choose a simulation. The zero value is the default of each.
type Options struct {
	F, C int
	// EpochBlocks is how many blocks an epoch has before its replicas deal for the next.
	EpochBlocks bft.Height
	Trace       func(line string)
}

func (o Options) cryptoTime() time.Duration    { return 500 * time.Microsecond }
func (o Options) executionTime() time.Duration { return 300 * time.Microsecond }
func (o Options) pollTime() time.Duration      { return 2 * time.Millisecond }

// Result is what one seed came to.
type Result struct {
	Violations []string
	Views      int
	Blocks     int
	Epochs     int
	Steps      int
}

// cluster is a simulated cluster.
type cluster struct {
	options   Options
	size      bft.Size
	world     *world
	net       *network
	replicas  []*replica
	genesis   *service
	check     *checker
	proposals map[bft.Digest]bool
	schedule  func(from, to *replica) time.Duration
	steps     int
	clients   []uint32
}

// adversary overrides what a Byzantine machine sends.
type adversary interface {
	send(from, to *replica, m bft.Message) []bft.Message
}

func newCluster(seed uint64, o Options) *cluster {
	if o.EpochBlocks == 0 {
		o.EpochBlocks = 40
	}
	c := &cluster{options: o, size: bft.Size{F: o.F, C: o.C}, world: newWorld(seed), proposals: make(map[bft.Digest]bool)}
	c.genesis = newService(c.size.Quorum())
	c.net = &network{c: c, low: time.Millisecond, high: 5 * time.Millisecond, group: make(map[*replica]int)}
	c.check = newChecker(c)
	for id := 1; id <= c.size.N(); id++ {
		c.replicas = append(c.replicas, &replica{c: c, id: bft.ReplicaID(id), disk: newDisk(c.genesis)})
	}
	return c
}

// config is the configuration of a replica in an epoch.
func (c *cluster) config(e bft.Epoch, self bft.ReplicaID) bft.Config {
	leaders := make([]bft.ReplicaID, c.size.N())
	for i := range leaders {
		leaders[i] = bft.ReplicaID((i+int(e))%len(leaders) + 1)
	}
	return bft.Config{
		Epoch: e, Size: c.size, Self: self, Leaders: leaders, Window: 4,
		Timeouts: bft.Timeouts{
			View: 150 * time.Millisecond, ViewMax: 2 * time.Second, Finalize: 20 * time.Millisecond,
			Idle: 30 * time.Millisecond, Resend: 100 * time.Millisecond, Ahead: time.Second,
		},
	}
}

func (c *cluster) keys(e bft.Epoch) keys {
	return keys{secret: mix(uint64(e) + 77), quorum: c.size.Quorum()}
}

func (c *cluster) byID(id bft.ReplicaID) *replica {
	for _, r := range c.replicas {
		if r.id == id {
			return r
		}
	}
	return nil
}

// diskTime is how long a group of writes takes.
func (c *cluster) diskTime(*replica) time.Duration {
	return c.world.between(100*time.Microsecond, time.Millisecond)
}

// signBlock notes a proposal and signs it: the signature is simulated by the note.
func (c *cluster) signBlock(b *bft.Block) []byte {
	c.proposals[b.Digest()] = true
	return make([]byte, bft.SignatureSize)
}

// genuine checks what the gateway checks with keys: that the leader signed.
func (c *cluster) genuine(m bft.Message) bool {
	switch m := m.(type) {
	case *bft.Block:
		_, err := decodeOps(m.Payload)
		return err == nil && c.proposals[m.Digest()] && bft.PayloadDigest(m.Payload) == m.Header.Payload
	case bft.SignedHeader:
		return c.proposals[m.Digest()]
	case bft.Evidence:
		return c.proposals[m.A.Digest()] && c.proposals[m.B.Digest()]
	}
	return true
}

// submit gives an operation to all machines.
func (c *cluster) submit(o op) {
	for _, r := range c.replicas {
		c.world.after(c.net.delay(r, r), func() {
			if r.up {
				r.pool = append(r.pool, o)
			}
		})
	}
}

// note writes a line of the trace.
func (c *cluster) note(r *replica, format string, args ...any) {
	if c.options.Trace == nil {
		return
	}
	who := "      "
	if r != nil {
		who = fmt.Sprintf("%3d%-3s", r.id, strings.Repeat("'", r.twin))
	}
	c.options.Trace(fmt.Sprintf("%10.3f %s %s", float64(c.world.now.Microseconds())/1000, who, fmt.Sprintf(format, args...)))
}

func (c *cluster) trace(r *replica, e bft.Effect) {
	if c.options.Trace != nil {
		c.note(r, "v%d %T %+v", r.core.View(), e, e)
	}
}

// Run simulates one seed.
func Run(seed uint64, o Options) (Result, error) {
	c := newCluster(seed, o)
	for _, r := range c.replicas {
		r.start()
	}
	var load func()
	numbers := make([]uint32, 4)
	load = func() {
		client := c.world.rng.IntN(len(numbers))
		numbers[client]++
		c.submit(op{opWrite, uint32(client), numbers[client]})
		c.world.after(c.world.between(time.Millisecond, 10*time.Millisecond), load)
	}
	load()
	c.world.run(3*time.Second, func() bool { return len(c.check.violations) > 0 })
	return c.result(), nil
}

func (c *cluster) result() Result {
	r := Result{Violations: c.check.violations, Blocks: len(c.check.roots), Epochs: len(c.check.ends) + 1, Steps: c.steps}
	for _, n := range c.replicas {
		r.Views = max(r.Views, int(n.core.View()))
	}
	return r
}
