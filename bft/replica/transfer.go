package replica

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
)

// Snapshots travel head first: methodHead serves the head of the newest one and its size,
// methodSnapshot the content, part by part.
const (
	methodHead     = "reseal/snapshot-head"
	methodSnapshot = "reseal/snapshot"
)

// snapshotPart is the size of one part, in bytes.
const snapshotPart = 2 << 20

// headTimeout is how long the heads of others are waited for. Those of n - 1 - f suffice.
const headTimeout = 2 * time.Second

// serveHead answers with the size of the newest snapshot and its head; with nothing when there is none.
func (r *Replica) serveHead(ctx context.Context, from *transport.Sender, data []byte) ([]byte, error) {
	if len(data) > 0 {
		return nil, errMalformedCall
	}
	return r.logShare.serve(ctx, from, func() ([]byte, error) {
		first := make([]byte, 4+maxHead)
		height, size, n, err := r.cfg.Store.ReadSnapshot(0, 0, first)
		if err != nil || height == 0 || n < 4 {
			return nil, err
		}
		length := int(binary.BigEndian.Uint32(first))
		if length > n-4 {
			return nil, errors.New("the newest snapshot is damaged")
		}
		return append(binary.BigEndian.AppendUint64(nil, uint64(size)), first[4:4+length]...), nil
	})
}

// serveSnapshot answers with a part of the snapshot of a height.
func (r *Replica) serveSnapshot(ctx context.Context, from *transport.Sender, data []byte) ([]byte, error) {
	s := cryptobyte.String(data)
	var height, offset uint64
	if !s.ReadUint64(&height) || !s.ReadUint64(&offset) || !s.Empty() || offset > math.MaxInt64 || height == 0 {
		return nil, errMalformedCall
	}
	return r.logShare.serve(ctx, from, func() ([]byte, error) {
		part := make([]byte, snapshotPart)
		found, _, n, err := r.cfg.Store.ReadSnapshot(bft.Height(height), int64(offset), part)
		if err == nil && found == 0 {
			err = errors.New("the snapshot was replaced by a newer one")
		}
		if err != nil {
			return nil, err
		}
		return part[:n], nil
	})
}

// offer is a snapshot that a peer offers. Its head is proven; its size is only claimed, and never
// exceeded.
type offer struct {
	*head
	peer bft.ReplicaID
	size int64
}

// askHead asks for the head of a peer's newest snapshot. It is not verified yet.
func (r *Replica) askHead(ctx context.Context, peer bft.ReplicaID) (*offer, error) {
	ctx, cancel := context.WithTimeout(ctx, headTimeout)
	defer cancel()
	answer, err := r.cfg.Network.Call(ctx, peer, methodHead, nil)
	if err != nil {
		return nil, err
	}
	s := cryptobyte.String(answer)
	var size uint64
	if !s.ReadUint64(&size) || size > math.MaxInt64 {
		return nil, errors.New("it has no snapshot")
	}
	h, err := parseHead(s)
	return &offer{h, peer, int64(size)}, err
}

// askHeads asks all others at once, and returns the offers that prove right, the smallest first. It
// waits for as many as correct replicas can be expected to answer, so that silent ones delay nobody.
func (r *Replica) askHeads(ctx context.Context) []*offer {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := r.Membership()
	peers := r.askOrder(nil)
	answers := make(chan *offer, len(peers))
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	for _, peer := range peers {
		asking.Go(func() {
			o, err := r.askHead(ctx, peer)
			if err != nil {
				o = nil
			}
			answers <- o
		})
	}
	var offers []*offer
	for i := range peers {
		// Before the group key is known, f + 1 have to name it: a liar that is always the first to
		// answer must not stand in the way.
		if i >= len(peers)-m.Size.F && (m.Epoch > 0 || agreedKey(offers, m.Size.F) != nil) {
			break
		}
		o := <-answers
		if o != nil {
			offers = append(offers, o)
		}
	}
	return r.proven(m, offers)
}

// proven returns the offers that prove right, the smallest first: an honest one then is fetched
// before any that is larger than it, so what liars can make this replica fetch for nothing is at
// most f times the size of an honest snapshot.
func (r *Replica) proven(m *Membership, offers []*offer) []*offer {
	if m.Epoch == 0 { // the group key is not known yet
		key := agreedKey(offers, m.Size.F)
		if key == nil {
			return nil
		}
		m = withGroupKey(m, key)
	}
	good := offers[:0]
	for _, o := range offers {
		if err := o.verify(r, m); err != nil {
			r.merits.blame(o.peer)
			r.complaints.about(o.peer, "a replica offers a bad snapshot", err)
			continue
		}
		good = append(good, o)
	}
	slices.SortStableFunc(good, func(a, b *offer) int {
		if broken("largest-snapshot-first") {
			return cmp.Compare(b.size, a.size)
		}
		return cmp.Or(cmp.Compare(r.merits.of(a.peer), r.merits.of(b.peer)), cmp.Compare(a.size, b.size))
	})
	return good
}

// agreedKey returns the group key that f + 1 replicas name, so a correct one; nil if there is none.
func agreedKey(offers []*offer, f int) []byte {
	named := make(map[string]int)
	for _, o := range offers {
		if named[string(o.groupKey)]++; len(o.groupKey) > 0 && (named[string(o.groupKey)] > f || broken("group-key-of-one")) {
			return o.groupKey
		}
	}
	return nil
}

// leap fetches a snapshot if one is offered that is so many blocks ahead, and reports whether it
// did. A peer that fails is left for the next; if all do, the log remains.
func (r *Replica) leap(ctx context.Context, limit time.Duration, blocks bft.Height) (leapt bool, err error) {
	for _, o := range r.askHeads(ctx) {
		if o.block.Height < r.ledger.latest.Load().height+blocks {
			continue
		}
		err := r.fetchSnapshot(ctx, o, limit)
		switch {
		case ctx.Err() != nil:
			return leapt, ctx.Err()
		case errors.Is(err, errFatal):
			return leapt, err
		case err != nil:
			r.merits.blame(o.peer)
			r.log.Warn("fetching a snapshot failed; trying another", "replica", o.peer, "error", err)
		default:
			leapt = true
		}
	}
	return leapt, nil
}

// fetchSnapshot makes an offered snapshot this replica's state if it proves right. It is examined
// as it comes; what is bad leaves neither state nor file behind.
func (r *Replica) fetchSnapshot(ctx context.Context, o *offer, limit time.Duration) error {
	r.log.Info("fetching a snapshot", "replica", o.peer, "height", o.block.Height, "bytes", o.size)
	file, err := r.cfg.Store.NewSnapshot(o.block.Height, o.size)
	if err != nil {
		return err
	}
	defer file.Discard()
	content := io.TeeReader(&progress{Reader: &remote{ctx: ctx, r: r, offer: o, patience: newPatience(limit)}, log: r.log}, file)
	raw, err := readPart(content, maxHead)
	if err != nil {
		return err
	}
	if want, err := o.marshal(); err != nil || string(want) != string(raw) {
		return errors.Join(errors.New("its content begins with another head"), err)
	}
	if err := r.adopt(o.head, content, r.restoreApplication); err != nil {
		return err
	}
	if err := file.Commit(); err != nil {
		return fmt.Errorf("%w: %w", errFatal, err)
	}
	r.snapshots.took(o.block.Height)
	return nil
}

// remote reads the content of an offered snapshot part by part: as many bytes as were offered, or
// it fails.
type remote struct {
	ctx      context.Context
	r        *Replica
	offer    *offer
	patience *patience
	read     int64 // bytes fetched
	part     []byte
}

func (q *remote) Read(p []byte) (int, error) {
	if len(q.part) == 0 {
		if q.read >= q.offer.size {
			return 0, io.EOF
		}
		if err := q.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, q.part)
	q.part = q.part[n:]
	return n, nil
}

func (q *remote) next() error {
	call := binary.BigEndian.AppendUint64(nil, uint64(q.offer.block.Height))
	call = binary.BigEndian.AppendUint64(call, uint64(q.read))
	part, err := q.patience.call(q.ctx, q.r.cfg.Network, q.offer.peer, methodSnapshot, call)
	if err != nil {
		return err
	}
	if int64(len(part)) != min(snapshotPart, q.offer.size-q.read) {
		return fmt.Errorf("it serves %d bytes from byte %d of the %d that it offered", len(part), q.read, q.offer.size)
	}
	q.part, q.read = part, q.read+int64(len(part))
	return nil
}
