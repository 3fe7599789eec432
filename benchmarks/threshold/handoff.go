package threshold

import (
	"context"
	"crypto/rand"
	"slices"
	"time"

	"github.com/reseal-bft/reseal/threshold"
	"github.com/reseal-bft/reseal/threshold/thresholdtest"
)

// sampledDealings is the number of dealings that a handoff verifies for real; with more dealers the
// time for these is scaled up, since it is the same for each.
const sampledDealings = 16

// measureDealings measures what one dealing costs its dealer and a receiver.
func measureDealings(m *meter, p threshold.Params, row *Row) error {
	g, err := newGroup(p)
	if err != nil {
		return err
	}
	h, err := newHandoff(g, p)
	if err != nil {
		return err
	}
	row.DealingBytes, row.PartBytes = len(h.commitment), len(h.part)
	m.time(&row.Deal, h.deal)
	m.time(&row.DealingVerify, h.verify)
	return nil
}

// measureHandoff measures what a whole handoff costs one replica in an epoch in which all n replicas
// deal:
//
//   - it deals its share, and encodes the commitment and everybody's part;
//   - of every other's dealing it decodes commitment and part, verifies that the dealer deals its share,
//     and the part, and signs the acknowledgement (the dealings verified are one dealing, n-1 times);
//   - it checks the certificates of the q dealings that are chosen;
//   - it makes the next sharing and its share of it. (The dealings that this is measured with have F=0:
//     only the first column of each enters, and q whole ones would take minutes to make at n=256.)
//
// It is the median of three up to n=64, and done once beyond.
func measureHandoff(ctx context.Context, p threshold.Params, row *Row) error {
	g, err := newGroup(p)
	if err != nil {
		return err
	}
	h, err := newHandoff(g, p)
	if err != nil {
		return err
	}
	if err := h.choose(g); err != nil {
		return err
	}
	var times []float64
	for len(times) == 0 || len(times) < 3 && p.N <= 64 {
		us, err := h.once(ctx)
		if err != nil {
			return err
		}
		times = append(times, us)
	}
	slices.Sort(times)
	row.Reshare = times[len(times)/2]
	return nil
}

// handoff is one replica's view of a handoff.
type handoff struct {
	params     threshold.Params
	old        *threshold.Sharing
	own        *threshold.Share
	commitment []byte // of one dealing, encoded
	part       []byte // of it, for this replica

	chosen       []*threshold.CertifiedDealing
	parts        map[int]*threshold.Part // of the chosen
	certificates []threshold.BatchItem   // of the chosen
}

func newHandoff(g *group, p threshold.Params) (*handoff, error) {
	h := &handoff{
		params: p, old: g.sharing, own: g.shares[0],
		parts: map[int]*threshold.Part{},
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
	return h, nil
}

// choose makes the dealings that are chosen, and their certificates.
func (h *handoff) choose(g *group) error {
	for d := 1; d <= h.params.T; d++ {
		dealing, err := threshold.Redeal(rand.Reader, threshold.Params{N: h.params.N, T: h.params.T}, []byte{byte(d)}, g.shares[d-1])
		if err != nil {
			return err
		}
		certified, err := thresholdtest.Certified(map[int]*threshold.Dealing{d: dealing}) // verified at acknowledgement, and remembered
		if err != nil {
			return err
		}
		h.chosen = append(h.chosen, certified...)
		if h.parts[d], err = dealing.Part(1); err != nil {
			return err
		}
	}
	one, err := newGroup(threshold.Params{N: 1, T: 1})
	if err != nil {
		return err
	}
	h.certificates, err = one.certificates(h.params.T) // under another key: as dear to verify, cheaper to make
	return err
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
	tr, err := threshold.Resharing(h.old, h.chosen...)
	if err != nil {
		return err
	}
	_, err = tr.Share(h.parts)
	return err
}

// once runs the handoff and returns its processor time in microseconds.
func (h *handoff) once(ctx context.Context) (float64, error) {
	start := cpuTime()
	if err := h.deal(); err != nil {
		return 0, err
	}
	dealt := cpuTime()
	others := h.params.N - 1
	sample := min(others, sampledDealings)
	for range sample {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := h.verify(); err != nil {
			return 0, err
		}
		h.own.Sign(message)
	}
	verified := cpuTime()
	if err := threshold.VerifyBatch(rand.Reader, h.certificates); err != nil {
		return 0, err
	}
	if err := h.transition(); err != nil {
		return 0, err
	}
	verifying := (verified - dealt) * time.Duration(others) / time.Duration(max(sample, 1))
	return microseconds(dealt - start + verifying + cpuTime() - verified), nil
}
