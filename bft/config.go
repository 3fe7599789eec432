package bft

import (
	"fmt"
	"time"
)

// Config fixes one epoch for one replica.
type Config struct {
	Cluster ClusterID
	Epoch   Epoch
	Size    Size
	Self    ReplicaID
	// Leaders is the schedule: the members that lead in this epoch, in order. Replicas due for
	// recovery are left out, so that a planned reboot never costs a timeout.
	Leaders []ReplicaID
	// Window is the number of consecutive views that a leader serves.
	Window int
	// Voter is false for a replica without a share of this epoch: it follows and executes, and says
	// nothing.
	Voter bool
	// Base is the final block that the epoch builds on: the last of the epoch before, or the genesis.
	Base Base
	// Timeouts are the time bounds of a view.
	Timeouts Timeouts
}

// Base is a final block: the one below an epoch, or the last one that was executed.
type Base struct {
	Height Height
	Digest Digest
	Time   int64
	// Root is the state's root after the block. The state below an epoch is never ready for a handoff.
	Root Digest
}

// Timeouts are the time bounds of a view. The view timer doubles with consecutive nullified views
// up to ViewMax, and further only when no block has become final for a thousand views.
type Timeouts struct {
	View     time.Duration // a leader's time for a block that can be notarized
	ViewMax  time.Duration
	Finalize time.Duration // after a notarization, before finalize votes are cast
	Idle     time.Duration // a leader with nothing to order waits this long
	Resend   time.Duration
	Ahead    time.Duration // bound of a block's time ahead of the voter's clock
}

// maxTimeout bounds every timeout.
const maxTimeout = 24 * time.Hour

// Validate reports timeouts whose order would keep the cluster from working: what a leader or a
// voter waits for in a view is at most an eighth of the view's time, and the network and the disks
// have the rest. The error begins with the field's name.
func (t Timeouts) Validate() error {
	wait := t.View / 8
	for _, x := range []struct {
		name      string
		is        time.Duration
		low, high time.Duration
	}{
		{"view", t.View, suspectedShare * time.Millisecond, maxTimeout},
		{"view_max", t.ViewMax, t.View, maxTimeout},
		{"finalize", t.Finalize, time.Millisecond, wait},
		{"idle", t.Idle, time.Millisecond, wait},
		{"resend", t.Resend, time.Millisecond, maxTimeout},
		{"ahead", t.Ahead, time.Millisecond, maxTimeout},
	} {
		if x.is < x.low || x.is > x.high {
			return fmt.Errorf("%s: %v: choose %v to %v; idle and finalize are at most an eighth of view, or leaders are passed over that do nothing wrong", x.name, x.is, x.low, x.high)
		}
	}
	return nil
}

// Restored is what a replica kept on disk of the current epoch, to go on after a restart.
type Restored struct {
	Votes        []Vote // own votes, with their partial signatures
	Blocks       []*Block
	Certificates []Certificate
	// Final is the last final block that was executed and FinalView its view. Zero: the epoch's base.
	Final     Base
	FinalView View
	// Executed are the last few states up to Final, in order of height: from the StateHeight of the
	// final block on.
	Executed []Executed
}
