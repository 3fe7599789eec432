package threshold

import (
	"crypto/rand"
	"slices"
	"time"

	"github.com/reseal-bft/reseal/threshold"
)

// sampledDealings is the number of dealings that a handoff verifies for real; with more dealers the
// time for these is scaled up, since it is the same for each.
const sampledDealings = 16

// measureHandoff measures dealings, and what a whole handoff costs one replica in an epoch in which
// all n replicas deal:
//
//   - it deals its share, and encodes the commitment and everybody's part;
//   - of every dealing it decodes commitment and part, verifies that the dealer deals its share, and the
//     part, and signs the acknowledgement (the dealings verified are one dealing, n times);
//   - it checks the certificates of the q dealings that are chosen;
//   - it makes the next sharing and its share of it. (The dealings that this is measured with have F=0:
//     only the first column of each enters, and q whole ones would take minutes to make at n=256.)
func measureHandoff(m *meter, p threshold.Params, row *Row) error {
	g, err := newGroup(p)
	if err != nil {
		return err
	}
	h, err := newHandoff(g, p)
	if err != nil {
		return err
	}
	row.DealingBytes, row.PartBytes = len(h.commitment), len(h.part)
	row.Deal = m.median(h.deal)
	row.DealingVerify = m.median(h.verify)
	if m.err != nil {
		return nil
	}
	row.Reshare, err = h.all(m, p)
	return err
}

// handoff is one replica's view of a handoff.
type handoff struct {
	params     threshold.Params
	old        *threshold.Sharing
	own        *threshold.Share
	commitment []byte // of one dealing, encoded
	part       []byte // of it, for this replica
	chosen     map[int]*threshold.Commitment
	parts      map[int]*threshold.Part
}

func newHandoff(g *group, p threshold.Params) (*handoff, error) {
	h := &handoff{
		params: p, old: g.sharing, own: g.shares[0],
		chosen: map[int]*threshold.Commitment{}, parts: map[int]*threshold.Part{},
	}
	dealing, err := threshold.Redeal(rand.Reader, p, nil, h.own)
	if err != nil {
		return nil, err
	}
	if h.commitment, err = dealing.Commitment().MarshalBinary(); err != nil {
		return nil, err
	}
	part, err := dealing.Part(1)
	if err != nil {
		return nil, err
	}
	h.part = part.SecretBytes()
	for d := 1; d <= p.T; d++ {
		dealing, err := threshold.Redeal(rand.Reader, threshold.Params{N: p.N, T: p.T}, nil, g.shares[d-1])
		if err != nil {
			return nil, err
		}
		h.chosen[d] = dealing.Commitment()
		if err := h.chosen[d].Verify(); err != nil { // done at acknowledgement, and remembered
			return nil, err
		}
		if h.parts[d], err = dealing.Part(1); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// deal makes this replica's dealing and all that it sends.
func (h *handoff) deal() error {
	dealing, err := threshold.Redeal(rand.Reader, h.params, nil, h.own)
	if err != nil {
		return err
	}
	defer dealing.Wipe()
	if _, err := dealing.Commitment().MarshalBinary(); err != nil {
		return err
	}
	for j := 1; j <= h.params.N; j++ {
		part, err := dealing.Part(j)
		if err != nil {
			return err
		}
		part.SecretBytes()
		part.Wipe()
	}
	return nil
}

// verify decodes and verifies one dealing and this replica's part of it.
func (h *handoff) verify() error {
	c, err := threshold.ParseCommitment(h.commitment)
	if err != nil {
		return err
	}
	part, err := threshold.ParsePart(h.part)
	if err != nil {
		return err
	}
	if err := c.VerifyRedeal(h.old, 1); err != nil {
		return err
	}
	return c.VerifyPart(part)
}

// transition makes the next sharing and the replica's share.
func (h *handoff) transition() error {
	tr, err := threshold.Resharing(h.old, h.chosen)
	if err != nil {
		return err
	}
	_, err = tr.Share(h.parts)
	return err
}

// all runs the handoff and returns its processor time in microseconds, the median of three up to n=64.
func (h *handoff) all(m *meter, p threshold.Params) (float64, error) {
	one, err := newGroup(threshold.Params{N: 1, T: 1})
	if err != nil {
		return 0, err
	}
	certificates, err := one.certificates(p.T) // under another key: as dear to verify, cheaper to make
	if err != nil {
		return 0, err
	}
	var times []float64
	for len(times) == 0 || len(times) < 3 && p.N <= 64 {
		us, err := h.once(m, p, certificates)
		if err != nil {
			return 0, err
		}
		times = append(times, us)
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}

func (h *handoff) once(m *meter, p threshold.Params, certificates []threshold.BatchItem) (float64, error) {
	start := cpuTime()
	if err := h.deal(); err != nil {
		return 0, err
	}
	dealt := cpuTime()
	sample := min(p.N, sampledDealings)
	for range sample {
		if err := m.ctx.Err(); err != nil {
			return 0, err
		}
		if err := h.verify(); err != nil {
			return 0, err
		}
		h.own.Sign(message)
	}
	verified := cpuTime()
	if err := threshold.VerifyBatch(rand.Reader, certificates); err != nil {
		return 0, err
	}
	if err := h.transition(); err != nil {
		return 0, err
	}
	verifying := (verified - dealt) * time.Duration(p.N) / time.Duration(sample)
	return microseconds(dealt - start + verifying + cpuTime() - verified), nil
}
