package bft_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/reseal-bft/reseal/bft"
)

// Scenarios are scripts that a person can read: testdata/scenarios. Each command prints what the
// replicas then do. Keys sign, certificates combine and blocks execute at once; messages wait until
// they are delivered, and timers until they fire. Run with -rewrite to write the outputs anew.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		s := &stage{t: t}
		datadriven.RunTest(t, path, s.run)
	})
}

// stage is the cluster of one script.
type stage struct {
	t        *testing.T
	size     bft.Size
	window   int
	now      int64
	actors   []*actor // 1 to n
	wire     []envelope
	names    map[bft.Digest]string
	blocks   map[string]*bft.Block
	endAt    bft.Height // the state after this height asks for the handoff
	leaders  []bft.ReplicaID
	out      strings.Builder
	bases    []bft.Base
	lastCert map[bft.Epoch]bft.Certificate
}

type envelope struct {
	from, to bft.ReplicaID
	message  bft.Message
}

func (s *stage) run(t *testing.T, d *datadriven.TestData) string {
	s.out.Reset()
	command, ok := map[string]func(*datadriven.TestData){
		"cluster": s.cluster, "propose": s.proposeCmd, "deliver": s.deliver, "drop": s.drop, "fire": s.fire, "crash": s.crash, "restart": s.restart,
		"forge": s.forge, "say": s.say, "state": s.state, "settle": s.settle, "wire": s.showWire, "lock": s.lock, "handoff": s.handoff,
	}[d.Cmd]
	if !ok {
		d.Fatalf(t, "unknown command %s", d.Cmd)
	}
	command(d)
	if s.out.Len() == 0 {
		return "nothing\n"
	}
	return s.out.String()
}

func number(d *datadriven.TestData, key string, otherwise int) int {
	for _, a := range d.CmdArgs {
		if a.Key == key && len(a.Vals) > 0 {
			n, err := strconv.Atoi(a.Vals[0])
			if err != nil {
				d.Fatalf(nil, "%s: %v", key, err)
			}
			return n
		}
	}
	return otherwise
}

func word(d *datadriven.TestData, key string) string {
	for _, a := range d.CmdArgs {
		if a.Key == key && len(a.Vals) > 0 {
			return a.Vals[0]
		}
	}
	return ""
}

// ids reads a list of replicas; without the key, all.
func (s *stage) ids(d *datadriven.TestData, key string) []bft.ReplicaID {
	var ids []bft.ReplicaID
	for _, a := range d.CmdArgs {
		if a.Key == key {
			for _, v := range a.Vals {
				n, err := strconv.Atoi(v)
				if err != nil {
					d.Fatalf(s.t, "%s: %v", key, err)
				}
				ids = append(ids, bft.ReplicaID(n))
			}
		}
	}
	if ids == nil {
		for i := range s.actors[1:] {
			ids = append(ids, bft.ReplicaID(i+1))
		}
	}
	return ids
}

// cluster f= c= [window=] [down=(ids)] starts a cluster; those that are down are started by restart.
func (s *stage) cluster(d *datadriven.TestData) {
	s.size = bft.Size{F: number(d, "f", 1), C: number(d, "c", 0)}
	s.window, s.now = number(d, "window", 1), 1000
	s.names, s.blocks = map[bft.Digest]string{{}: "genesis"}, make(map[string]*bft.Block)
	s.actors = make([]*actor, 1)
	s.bases, s.lastCert = []bft.Base{{}}, make(map[bft.Epoch]bft.Certificate)
	s.leaders = nil
	for i := range s.size.N() {
		s.leaders = append(s.leaders, bft.ReplicaID(i+1))
		s.actors = append(s.actors, &actor{s: s, id: bft.ReplicaID(i + 1), byDigest: make(map[bft.Digest]*bft.Block)})
	}
	var down []bft.ReplicaID
	if word(d, "down") != "" {
		down = s.ids(d, "down")
	}
	for _, a := range s.actors[1:] {
		if !slices.Contains(down, a.id) {
			a.start()
		}
	}
}

// propose ID [op=TEXT] answers the proposal that a leader was asked for.
func (s *stage) proposeCmd(d *datadriven.TestData) {
	for _, id := range s.ids(d, "by") {
		a := s.actors[id]
		if a.propose == nil {
			continue
		}
		payload := []byte(word(d, "op"))
		if len(payload) == 0 || a.propose.Empty {
			payload = nil
		}
		b := s.block(a.propose.Header, payload)
		a.propose = nil
		a.act(a.core.Step(s.reading(), bft.Proposed{Block: b}))
	}
}

// block makes a block and gives it a name: its view and a letter.
func (s *stage) block(h bft.Header, payload []byte) *bft.Block {
	h.Payload, h.Time = bft.PayloadDigest(payload), s.now
	for name := 'a'; ; name++ {
		key := fmt.Sprintf("%d%c", h.View, name)
		if h.Epoch > 0 {
			key = fmt.Sprintf("%d.%s", h.Epoch, key)
		}
		if s.blocks[key] == nil {
			h.Time += int64(name - 'a')
			b := &bft.Block{Header: h, Payload: payload, Signature: make([]byte, bft.SignatureSize)}
			s.blocks[key], s.names[b.Digest()] = b, key
			return b
		}
	}
}

// forge by=ID view= [on=BLOCK] [op=TEXT] makes another block with a leader's signature.
func (s *stage) forge(d *datadriven.TestData) {
	like := s.blocks[word(d, "like")]
	h := bft.Header{View: bft.View(number(d, "view", 1)), Height: 1, Proposer: bft.ReplicaID(number(d, "by", 1))}
	if like != nil {
		h = like.Header
	}
	b := s.block(h, []byte(word(d, "op")))
	fmt.Fprintf(&s.out, "%s\n", s.name(b.Digest()))
}

// say from=ID [to=(IDs)] what a Byzantine replica says: block=NAME, or vote=KIND of=NAME view=V
// [first] [bad].
func (s *stage) say(d *datadriven.TestData) {
	from := bft.ReplicaID(number(d, "from", 1))
	var m bft.Message
	if name := word(d, "block"); name != "" {
		m = s.blocks[name]
	} else {
		kind := map[string]bft.VoteKind{"notarize": bft.Notarize, "nullify": bft.Nullify, "finalize": bft.Finalize}[word(d, "vote")]
		v := bft.Vote{Statement: bft.Statement{View: bft.View(number(d, "view", 1)), Kind: kind}, First: d.HasArg("first"), Partial: []byte("partial")}
		if d.HasArg("bad") {
			v.Partial = []byte("forged")
		}
		if b := s.blocks[word(d, "of")]; b != nil {
			v.Block, v.View = b.Digest(), b.View
		}
		m = v
	}
	for _, to := range s.ids(d, "to") {
		if to != from {
			s.wire = append(s.wire, envelope{from, to, m})
		}
	}
	s.deliver(d)
}

// deliver [from=(IDs)] [to=(IDs)] [what=block|vote|certificate|evidence|header|status] hands over
// what is under way, but not what that causes.
func (s *stage) deliver(d *datadriven.TestData) {
	due, rest := s.pick(d)
	s.wire = rest
	for _, e := range due {
		s.hand(e)
	}
}

func (s *stage) hand(e envelope) {
	a := s.actors[e.to]
	if a.core == nil {
		return
	}
	if st, ok := e.message.(bft.Status); ok && st.Epoch < a.epoch {
		s.wire = append(s.wire, envelope{e.to, e.from, s.lastCert[st.Epoch]})
	}
	a.act(a.core.Step(s.reading(), bft.Receive{From: e.from, Message: e.message}))
}

// drop loses what deliver would hand over.
func (s *stage) drop(d *datadriven.TestData) {
	due, rest := s.pick(d)
	s.wire = rest
	fmt.Fprintf(&s.out, "%d messages are lost\n", len(due))
}

func (s *stage) pick(d *datadriven.TestData) (due, rest []envelope) {
	from, to, what := s.ids(d, "from"), s.ids(d, "to"), word(d, "what")
	for _, e := range s.wire {
		if slices.Contains(from, e.from) && slices.Contains(to, e.to) && (what == "" || what == s.kind(e.message)) {
			due = append(due, e)
		} else {
			rest = append(rest, e)
		}
	}
	return due, rest
}

// settle [not=(IDs)] [propose] delivers everything and what it causes, until nothing is under way,
// and prints only what becomes final.
func (s *stage) settle(d *datadriven.TestData) {
	rounds := number(d, "views", 0)
	for range 200 {
		for len(s.wire) > 0 {
			e := s.wire[0]
			s.wire = s.wire[1:]
			if not := word(d, "not"); not == "" || !slices.Contains(s.ids(d, "not"), e.to) && !slices.Contains(s.ids(d, "not"), e.from) {
				s.hand(e)
			}
		}
		asked := false
		for _, a := range s.actors[1:] {
			if rounds > 0 && a.core != nil && a.propose != nil {
				rounds--
				asked = true
				b := s.block(a.propose.Header, nil)
				a.propose = nil
				a.act(a.core.Step(s.reading(), bft.Proposed{Block: b}))
			}
		}
		if !asked {
			break
		}
	}
	if d.HasArg("quiet") {
		s.out.Reset()
		s.state(d)
	}
}

// fire [at=(IDs)] timer=view|finalize|resend lets a timer expire.
func (s *stage) fire(d *datadriven.TestData) {
	kind := map[string]bft.TimerKind{"view": bft.TimerView, "finalize": bft.TimerFinalize, "resend": bft.TimerResend}[word(d, "timer")]
	s.now += int64(number(d, "after", 200))
	for _, id := range s.ids(d, "at") {
		if a := s.actors[id]; a.core != nil {
			a.act(a.core.Step(s.reading(), bft.Expired{Timer: bft.Timer{View: a.core.View(), Kind: kind}}))
		}
	}
}

// crash at=(IDs) ends replicas; their disks stay.
func (s *stage) crash(d *datadriven.TestData) {
	for _, id := range s.ids(d, "at") {
		s.actors[id].core = nil
	}
	fmt.Fprintln(&s.out, "down")
}

// restart at=(IDs) starts them from their disks.
func (s *stage) restart(d *datadriven.TestData) {
	for _, id := range s.ids(d, "at") {
		s.actors[id].start()
	}
}

// lock at=(IDs) [off] makes keys refuse to sign.
func (s *stage) lock(d *datadriven.TestData) {
	for _, id := range s.ids(d, "at") {
		s.actors[id].locked = !d.HasArg("off")
	}
}

// handoff at=HEIGHT lets the state after a height ask for the end of the epoch.
func (s *stage) handoff(d *datadriven.TestData) { s.endAt = bft.Height(number(d, "at", 1)) }

// state [timer] prints where the replicas stand, and the view timer that each set last.
func (s *stage) state(d *datadriven.TestData) {
	for _, a := range s.actors[1:] {
		if a.core == nil {
			fmt.Fprintf(&s.out, "%d: down\n", a.id)
			continue
		}
		height, view := a.core.Final()
		fmt.Fprintf(&s.out, "%d: epoch %d, view %d, final height %d of view %d", a.id, a.epoch, a.core.View(), height, view)
		if d.HasArg("timer") {
			fmt.Fprintf(&s.out, ", view timer %v", a.timer)
		}
		fmt.Fprintln(&s.out)
	}
}

// wire prints what is under way.
func (s *stage) showWire(*datadriven.TestData) {
	for _, e := range s.wire {
		fmt.Fprintf(&s.out, "%d to %d: %s\n", e.from, e.to, s.kind(e.message))
	}
}

func (s *stage) kind(m bft.Message) string {
	switch m.(type) {
	case *bft.Block:
		return "block"
	case bft.Vote:
		return "vote"
	case bft.Certificate:
		return "certificate"
	case bft.Evidence:
		return "evidence"
	case bft.SignedHeader:
		return "header"
	}
	return "status"
}

func (s *stage) name(d bft.Digest) string {
	if name, ok := s.names[d]; ok {
		return name
	}
	return d.String()
}

func (s *stage) vote(v bft.Vote) string {
	text := v.Kind.String()
	if v.Kind == bft.Nullify {
		text += fmt.Sprintf(" view %d", v.View)
	} else {
		text += " " + s.name(v.Block)
	}
	if v.Kind != bft.Finalize && !v.First {
		text += " as fallback"
	}
	return text
}

func (s *stage) certificate(st bft.Statement) string {
	switch st.Kind {
	case bft.Notarize:
		return "notarization of " + s.name(st.Block)
	case bft.Nullify:
		return fmt.Sprintf("nullification of view %d", st.View)
	}
	return "finalization of " + s.name(st.Block)
}

// reading is what both clocks of every replica show.
func (s *stage) reading() bft.Now { return bft.Now{Mono: s.now, Wall: s.now} }
