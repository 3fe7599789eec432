package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/reseal-bft/reseal/bft"
)

// cluster is a simulated cluster.
type cluster struct {
	options   Options
	size      bft.Size
	world     *world
	net       *network
	replicas  []*replica // machines; twins share an identity
	genesis   *service
	check     *checker
	proposals map[bft.Digest]*bft.Block // every block that its leader signed
	clients   []*client
	down      map[*replica]bool // machines that stay down
	steps     int
	hash      uint64
	counted   counts
}

// counts are figures of a run.
type counts struct {
	fast, slow int // blocks announced without and with the help of a certificate, by correct machines
}

func newCluster(seed uint64, o Options) *cluster {
	c := &cluster{
		options: o, size: bft.Size{F: o.F, C: o.C}, world: newWorld(seed),
		proposals: make(map[bft.Digest]*bft.Block), down: make(map[*replica]bool),
	}
	c.genesis = newService(c.handoffDealings(), o)
	c.net = newNetwork(c)
	c.check = newChecker(c)
	for id := 1; id <= c.size.N(); id++ {
		c.addMachine(bft.ReplicaID(id), 0)
	}
	c.corrupt()
	for i := range 4 {
		c.clients = append(c.clients, &client{c: c, id: uint32(i)})
	}
	return c
}

func (c *cluster) addMachine(id bft.ReplicaID, twin int) *replica {
	r := &replica{c: c, id: id, twin: twin, disk: newDisk(c.genesis), slowness: 1}
	c.replicas = append(c.replicas, r)
	return r
}

// config is the configuration of a replica in an epoch.
func (c *cluster) config(e bft.Epoch, self bft.ReplicaID) bft.Config {
	var leaders []bft.ReplicaID
	for i := range c.size.N() {
		id := bft.ReplicaID((i+int(e))%c.size.N() + 1)
		if !c.due(e, id) {
			leaders = append(leaders, id)
		}
	}
	return bft.Config{
		Cluster: clusterID, Epoch: e, Size: c.size, Self: self, Leaders: leaders, Window: c.options.Window, Timeouts: timeouts,
	}
}

// due says that a replica is scheduled for recovery in an epoch: c replicas in turn, which do not
// lead in it.
func (c *cluster) due(e bft.Epoch, id bft.ReplicaID) bool {
	if !c.options.has("recovery") || c.size.C == 0 {
		return false
	}
	n := c.size.N()
	return (int(id)+n-int(e)*c.size.C%n)%n < c.size.C
}

// keys are the epoch's shares, in the hands of the simulator.
func (c *cluster) keys(e bft.Epoch) keys {
	k := keys{secret: mix(uint64(e) + 77), quorum: c.size.Quorum()}
	if c.planted("quorum-small") {
		k.quorum--
	}
	if c.planted("certificate-unbound") {
		k.secret = 77
	}
	return k
}

// signedBytes are the bytes that are signed for a statement.
func (c *cluster) signedBytes(s bft.Statement) []byte {
	if c.planted("certificate-unbound") {
		s.Epoch = 0
	}
	return s.Bytes(clusterID)
}

var clusterID = bft.ClusterID{1}

// handoffDealings is how many dealings make the next epoch's key.
func (c *cluster) handoffDealings() int {
	if c.planted("handoff-few-dealings") {
		return c.size.Quorum() - 1
	}
	return c.size.Quorum()
}

func (c *cluster) byID(id bft.ReplicaID) *replica {
	for _, r := range c.replicas {
		if r.id == id {
			return r
		}
	}
	return nil
}

// signBlock notes a proposal and signs it: the note stands for the signature.
func (c *cluster) signBlock(b *bft.Block) []byte {
	c.proposals[b.Digest()] = b
	return make([]byte, bft.SignatureSize)
}

// genuine checks what a gateway checks with keys: that the leader signed, and the payload's form.
func (c *cluster) genuine(m bft.Message) bool {
	switch m := m.(type) {
	case *bft.Block:
		_, err := decodeOps(m.Payload)
		return err == nil && c.proposals[m.Digest()] != nil && bft.PayloadDigest(m.Payload) == m.Header.Payload
	case bft.SignedHeader:
		return c.proposals[m.Digest()] != nil
	case bft.Evidence:
		return c.proposals[m.A.Digest()] != nil && c.proposals[m.B.Digest()] != nil
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

// client submits one operation after the other, and again while it is not executed.
type client struct {
	c      *cluster
	id     uint32
	number uint32
	tried  time.Duration
}

// go on with the next operation when the last one is executed somewhere; retry otherwise.
func (k *client) run() {
	done := k.number == 0
	if !done {
		_, done = k.c.check.effects[op{opWrite, k.id, k.number}]
	}
	if done {
		k.number++
	}
	if done || k.c.world.now-k.tried > 300*time.Millisecond {
		k.tried = k.c.world.now
		k.c.submit(op{opWrite, k.id, k.number})
	}
	k.c.world.after(k.c.world.between(2*time.Millisecond, 20*time.Millisecond), k.run)
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

// record folds what a machine does into the hash of the run, and into the trace.
func (c *cluster) record(r *replica, e bft.Effect) {
	c.hash = mix(c.hash ^ uint64(c.world.now) ^ uint64(r.id)<<48 ^ uint64(r.core.View())<<16 ^ effectCode(e))
	if c.options.Trace != nil {
		c.options.Trace(fmt.Sprintf("%10.3f %3d%-3s %s", float64(c.world.now.Microseconds())/1000, r.id, strings.Repeat("'", r.twin), describe(r, e)))
	}
}
