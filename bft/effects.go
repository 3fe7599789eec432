package bft

import "time"

// Now is a reading of two clocks, in milliseconds, taken when an event comes in.
type Now struct {
	// Mono never goes back and runs at the pace of time; where it begins means nothing. All
	// durations are measured by it.
	Mono int64
	// Wall is the time since 1970 as this machine believes it. It may be wrong and may jump: it
	// dates blocks, and bounds how far a leader may move their time.
	Wall int64
}

// Event is an input of the core.
type Event interface{ event() }

// Receive is a message of an authenticated peer, validated at the gateway: sizes, epoch, leader's
// signature on blocks and evidence, payload well-formed and matching its digest. Partial signatures
// and certificates are not yet verified.
type Receive struct {
	From    ReplicaID
	Message Message
}

// Signed answers [Sign]. Vote.Partial is nil when the guard or the key refused; Err then says why.
type Signed struct {
	Vote Vote
	Err  error
}

// Combined answers [Combine]. Signature is nil when too few partial signatures were good; Bad names
// the bad ones.
type Combined struct {
	Statement Statement
	Signature []byte
	Bad       []ReplicaID
}

// Verified answers [Verify].
type Verified struct {
	Certificate Certificate
	From        ReplicaID
	OK          bool
}

// Proposed answers [Propose] with the finished block: payload chosen, header filled in, signed by
// the epoch key.
type Proposed struct{ Block *Block }

// Executed answers [Finalized]: the application has executed the block at Height and the state has
// this root. HandoffReady says that this state asks for the end of the epoch.
type Executed struct {
	Height       Height
	Root         Digest
	HandoffReady bool
}

// Fetched answers [Fetch]: blocks that link up by parent digest, oldest first, validated at the gateway.
type Fetched struct{ Blocks []*Block }

// Expired answers [SetTimer].
type Expired struct{ Timer Timer }

// Lost says that a replica has ended: its connections broke, and its machine refuses others. It is
// a hint, which nobody has to give and anybody may get wrong: a leader that is lost is given little
// time, until it says anything.
type Lost struct{ Replica ReplicaID }

func (Receive) event()  {}
func (Signed) event()   {}
func (Combined) event() {}
func (Verified) event() {}
func (Proposed) event() {}
func (Executed) event() {}
func (Fetched) event()  {}
func (Expired) event()  {}
func (Lost) event()     {}

// Effect is an output of the core. The effects of a step are carried out in order; one that is
// durable (StoreBlock, StoreCertificate, Sign) may be written in a group, but a vote is signed only
// when everything before it is on disk, and nothing is sent before the blocks stored before it that
// this replica proposed are: a restart must find again what others may have seen.
type Effect interface{ effect() }

// Sign asks the guard to record the vote durably and the key to sign it; answered by [Signed].
type Sign struct{ Vote Vote }

// Broadcast sends a message to all other replicas.
type Broadcast struct{ Message Message }

// Send sends a message to one replica.
type Send struct {
	To      ReplicaID
	Message Message
}

// Combine asks for a certificate; answered by [Combined].
type Combine struct {
	Statement Statement
	Partials  map[ReplicaID][]byte
}

// Verify asks whether a certificate that came from a peer is good; answered by [Verified].
type Verify struct {
	Certificate Certificate
	From        ReplicaID
}

// Propose asks for a block on the given parent; answered by [Proposed]. The header comes filled in
// but for Payload and Time (which must be at least MinTime). When there are no operations to order,
// the replica waits for some until MayIdle has passed (zero: an empty block is wanted at once). A
// later Propose replaces one that is not yet answered.
type Propose struct {
	Header  Header
	MinTime int64
	MayIdle time.Duration
	// Empty asks for an empty payload. It, too, is made only when MayIdle has passed.
	Empty bool
}

// StoreBlock makes a block durable.
type StoreBlock struct{ Block *Block }

// StoreCertificate makes a certificate durable.
type StoreCertificate struct{ Certificate Certificate }

// Finalized says that a block is final; they come in order of height, each once. The replica
// executes it and answers [Executed]. The epoch's last block has Last set, and comes only after its
// finalization certificate was stored and sent: after it the core stands still.
type Finalized struct {
	Block *Block
	Last  bool
}

// Fetch asks for the block with the given digest and those of its ancestors above Above that the
// replica lacks; answered by [Fetched]. It is asked again while the block is missing. A chain of
// more than [MaxFetch] blocks is the business of the replica's state transfer.
type Fetch struct {
	Block Digest
	View  View
	Above Height
	// Hint names replicas that should have it.
	Hint []ReplicaID
}

// TimerKind tells the timers of a view apart.
type TimerKind uint8

// The timers of a view.
const (
	// TimerView: the leader's time is up.
	TimerView TimerKind = 1 + iota
	// TimerFinalize: the fast path did not complete within a moment of the notarization.
	TimerFinalize
	// TimerResend: no progress; say again what was said.
	TimerResend
)

// Timer names a timer, and the view for which it was set. At most one of each kind is pending.
type Timer struct {
	View View
	Kind TimerKind
}

// SetTimer asks for [Expired] after a while, in place of the pending timer of the same kind. The
// core checks the time again when it expires: an early or stale one does no harm.
type SetTimer struct {
	Timer Timer
	After time.Duration
}

// Accuse makes evidence known to the replica, which submits it to the log (a culprit is scheduled
// for recovery).
type Accuse struct {
	Replica  ReplicaID
	Evidence Evidence
}

// Diverged says that a certified state root contradicts the local one: the replica's state cannot
// be trusted. The core casts no more votes.
type Diverged struct {
	Height          Height
	Certified, Mine Digest
}

// ClockOff says that something is wrong with a wall clock: this replica's jumped by Jumped
// (negative: back), or it stands Behind the time of the last final block by more than
// [Timeouts.Ahead], which then stands still until the clock has caught up. Both zero: it is right
// again. It changes nothing but the time of blocks.
type ClockOff struct{ Jumped, Behind time.Duration }

func (Sign) effect()             {}
func (Broadcast) effect()        {}
func (Send) effect()             {}
func (Combine) effect()          {}
func (Verify) effect()           {}
func (Propose) effect()          {}
func (StoreBlock) effect()       {}
func (StoreCertificate) effect() {}
func (Finalized) effect()        {}
func (Fetch) effect()            {}
func (SetTimer) effect()         {}
func (Accuse) effect()           {}
func (Diverged) effect()         {}
func (ClockOff) effect()         {}
