package drill

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/internal/stage"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/swtpm"
)

// intruders are the drills of one who took a replica, or a part of it, and comes back with what he
// took or left something behind.
var intruders = []Drill{
	{
		Name: "stolen-disk", keystore: cluster.SWTPM, play: stolenDisk,
		Summary: "a replica's disk is copied, the replica recovers: its device opens nothing of the copy, and another machine has no use of it",
	},
	{
		Name: "lapsed-replica", keystore: cluster.SWTPM, play: lapsedReplica, deadline: lapse,
		Summary: "a replica does not reboot when it is due: it gets no share, and what it held is gone all the same",
	},
}

// recover recovers one replica, and returns what was seen before and after.
func (r *Rehearsal) recover(ctx context.Context, id bft.ReplicaID) (before, after *stage.Sight, err error) {
	m := r.Machines[id-1]
	if before, err = r.OpenRound(ctx, id); err != nil {
		return nil, nil, err
	}
	m.Crash()
	if err := r.Reboot(m); err != nil {
		return nil, nil, err
	}
	if after, err = r.AwaitEpoch(ctx, before.Epoch+1); err != nil {
		return nil, nil, err
	}
	return before, after, r.AwaitBack(ctx, m, after)
}

// refuses offers a copy of a keystore to the machine's own device. A machine with a TPM is reset
// for it, and boots again.
func (r *Rehearsal) refuses(ctx context.Context, m *stage.Machine, backup string, epoch bft.Epoch) {
	refusal, err := m.Offer(ctx, r.Program, backup, epoch)
	detail := fmt.Sprint(err)
	if refusal != nil {
		detail = refusal.Error()
	}
	if m.TPM != nil {
		if err := r.Reboot(m); err != nil {
			r.Check(false, "the machine boots again", "%v", err)
		}
	}
	r.Check(refusal != nil && errors.Is(refusal, keystore.ErrErased), fmt.Sprintf("the device opens no share of epoch %d", epoch), "%s", detail)
}

func stolenDisk(ctx context.Context, r *Rehearsal) error {
	m := r.Machines[0]
	backup := filepath.Join(r.Scratch, "stolen")
	if err := m.BackUp(backup); err != nil {
		return err
	}
	r.Show.Event("somebody copies the disk of replica %d", m.ID)
	before, _, err := r.recover(ctx, m.ID)
	if err != nil {
		return err
	}
	if err := r.movedOn(ctx, m, before.Epoch); err != nil {
		return err
	}
	r.refuses(ctx, m, backup, before.Epoch)
	return r.elsewhere(ctx, m, backup)
}

// elsewhere opens a copied disk on another machine, whose TPM is as good as that of the replica.
func (r *Rehearsal) elsewhere(ctx context.Context, m *stage.Machine, backup string) (err error) {
	dir := filepath.Join(r.Scratch, "elsewhere")
	ca, err := swtpm.NewCA(filepath.Join(r.Scratch, "ca"))
	if err != nil {
		return err
	}
	if err := ca.Manufacture(ctx, dir); err != nil {
		return err
	}
	other, err := swtpm.Start(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, other.Close()) }()
	out, openErr := r.reseal(ctx, "keystore", "status", other.URI(), "--dir", backup, "--genesis", r.Dir.Genesis(), "--replica", strconv.Itoa(int(m.ID)))
	r.Check(openErr != nil && strings.Contains(out, "another TPM"), "on another machine the copy is nobody", "%s", lastLine(out))
	return nil
}

// movedOn waits until a machine's keystore has left an epoch.
func (r *Rehearsal) movedOn(ctx context.Context, m *stage.Machine, epoch bft.Epoch) error {
	return r.Until(ctx, fmt.Sprintf("the keystore of replica %d moves on from epoch %d", m.ID, epoch), func(ctx context.Context) (bool, error) {
		now, err := m.SealedEpoch(ctx)
		return now > epoch, err
	})
}

// lapse is the deadline of a round in which a replica is to miss it.
const lapse = 4 * time.Second

func lapsedReplica(ctx context.Context, r *Rehearsal) error {
	m := r.Machines[0]
	backup := filepath.Join(r.Scratch, "lapsed")
	if err := m.BackUp(backup); err != nil {
		return err
	}
	before, err := r.OrderRound(ctx, m.ID) // whether it has shown its present boot in time is all the same
	if err != nil {
		return err
	}
	r.Show.Event("replica %d is due, and does not reboot; its deadline is %v", m.ID, lapse)
	after, err := r.AwaitEpoch(ctx, before.Epoch+1)
	if err != nil {
		return err
	}
	member := after.Member(m.ID)
	r.Check(!member.HoldsShare, "it has no share of the next epoch", "%s", member.Status)
	if err := r.movedOn(ctx, m, before.Epoch); err != nil {
		r.Check(false, "its device has left the old epoch", "%v", err)
	}
	r.refuses(ctx, m, backup, before.Epoch)
	return nil
}
