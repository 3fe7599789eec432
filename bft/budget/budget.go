package budget

import (
	"fmt"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
)

// What does not depend on the limit, in bytes unless it says otherwise.
const (
	// Default is the limit whose budgets apply where no limit is set.
	Default = 1 << 30

	// Log is what the database of the log takes, outside Go's heap.
	Log = 80 << 20
	// Open bounds the payloads above the certified state to which a correct leader adds a block that
	// is not empty.
	Open = 16 << 20
	// Fetches bounds the calls under way that fetch blocks which are not final.
	Fetches = 4
	// Connections bounds the connections of clients, by number; Handshakes those that have not
	// authenticated.
	Connections, Handshakes = 1024, 256
	// Stream is what a call takes beside its bytes, from its first one on: a goroutine, mostly.
	Stream = 16 << 10

	process       = 64 << 20 // code, and what the databases' allocator leaves unused
	connection    = 64 << 10 // of a client, without what its calls hold
	handshake     = 32 << 10
	sessionRecord = 440
	frame         = bft.MaxMessage + 1<<10
	reply         = bft.MaxReply + 1<<10
	// Blocks that a Byzantine leader can have a core hold beside the chain: two in each of 17 views.
	aside = 2 * 17
)

// Table is the budgets of a replica, in bytes.
type Table struct {
	// State is for the state of the built-in store.
	State int64
	// Clients is for the calls of clients: requests until they are answered, answers until they are
	// taken, [Stream] for each call.
	Clients int
	// Pool is for the requests that wait to be ordered.
	Pool int
	// Results is for the results that are held for clients who wait or ask again.
	Results int
	// Queue is for the frames that wait for one peer.
	Queue int
	// Calls is for the calls of all peers, like Clients.
	Calls int
	// Received is for what one peer has sent and the core has not seen.
	Received int
	// Decided is for what the core has decided, and is not written or executed.
	Decided int
	// Early is for what one peer says in an epoch that has not begun here.
	Early int
	// Parsed is for blocks that are parsed and not executed.
	Parsed int

	items []Item
	limit int64
	inGo  int64
}

// Item is one line of a table. Of says how many there are of it.
type Item struct {
	Name  string
	Bytes int64
	Of    int
}

// Of divides a limit, in bytes, among the parts of a replica of a cluster. The limit 0 stands for
// none: the budgets are those of [Default], or of the least. A limit that is too small is refused.
func Of(limit int64, size bft.Size) (*Table, error) {
	least := Least(size)
	if limit == 0 {
		limit = max(Default, least)
	}
	if limit < least {
		return nil, fmt.Errorf("a memory limit of %d MiB is too small: a replica of a cluster of %d takes at least %d MiB; set memory_limit_mib to that or more (%d is the default)",
			limit>>20, size.N(), (least+1<<20-1)>>20, Default>>20)
	}
	return divide(limit, size), nil
}

// Usual is the table of the default limit for a cluster of six.
func Usual() *Table { return divide(Default, bft.Size{F: 1, C: 1}) }

// Least is the smallest limit for a cluster, in bytes.
func Least(size bft.Size) int64 {
	var least int64
	for _, item := range fixed(size) {
		least += item.Bytes * int64(item.Of)
	}
	for _, s := range new(Table).shares(size) {
		least += s.least * int64(s.of)
	}
	return (least*headroom + headroom - 2) / (headroom - 1)
}

// headroom is the part of a limit, 1/headroom, that is nobody's: for the collector.
const headroom = 12

// share is what a part gets of what is left: so many parts of all.
type share struct {
	name         string
	of           int // how many there are
	least, parts int64
	set          func(bytes int64)
}

func (t *Table) shares(size bft.Size) []share {
	peers := size.N() - 1
	into := func(field *int) func(int64) { return func(bytes int64) { *field = int(bytes) } }
	return []share{
		{"the state", 1, 32 << 20, 14, func(bytes int64) { t.State = bytes }},
		{"calls of clients", 1, 16 << 20, 7, into(&t.Clients)},
		{"requests that wait", 1, 16 << 20, 3, into(&t.Pool)},
		{"results", 1, 2 * bft.MaxBlockResults, 2, into(&t.Results)},
		{"frames for a peer", peers, 2 * frame, 2, into(&t.Queue)},
		{"calls of peers", 1, 2 * reply, 1, into(&t.Calls)},
		{"frames of a peer", peers, frame, 1, into(&t.Received)},
		{"what is decided", 1, 8 << 20, 1, into(&t.Decided)},
		{"frames of a peer, early", peers, 256 << 10, 1, into(&t.Early)},
		{"parsed blocks", 1, 2 * frame, 1, into(&t.Parsed)},
	}
}

// fixed is what a replica of a cluster takes under any limit.
func fixed(size bft.Size) []Item {
	peers := size.N() - 1
	// Execution stands still, and a Byzantine leader fills its blocks as far as the rules let it.
	chain := Open + bft.MaxPayload + bft.MaxPayload*(bft.MaxStateLag*size.F/size.N()+1)
	return []Item{
		{"the process", process, 1},
		{"the log's database", Log, 1},
		{"sessions", sessionRecord, request.SessionRecords},
		{"connections of clients", connection, Connections},
		{"handshakes", handshake, Handshakes},
		{"blocks that are not executed", int64(chain), 1},
		{"blocks beside the chain", bft.MaxPayload, aside},
		{"a frame that is read of each peer", frame, peers},
		{"answers of peers", reply, Fetches + size.F},
	}
}

func divide(limit int64, size bft.Size) *Table {
	t := &Table{limit: limit, items: fixed(size)}
	shares := t.shares(size)
	left, parts := limit-(limit+headroom-1)/headroom, int64(0)
	for _, item := range t.items {
		left -= item.Bytes * int64(item.Of)
	}
	for _, s := range shares {
		left -= s.least * int64(s.of)
		parts += s.parts
	}
	for _, s := range shares {
		bytes := s.least + left*s.parts/parts/int64(s.of)
		s.set(bytes)
		t.items = append(t.items, Item{s.name, bytes, s.of})
	}
	t.inGo = limit - process - Log - t.State/4 // the store has a quarter of its own in a database
	return t
}

// Items are all lines. Their sum is at most the limit.
func (t *Table) Items() []Item { return t.items }

// InGo is what Go's heap may take, for its own limit, in bytes: all but what the databases take,
// which do not take theirs from Go, and the process.
func (t *Table) InGo() int64 { return t.inGo }
