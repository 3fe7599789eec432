package recovery

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/threshold"
)

func sharingName(epoch bft.Epoch) string { return fmt.Sprintf("sharing/%d/", epoch) }

// partName names a stored part by the epoch whose vault key encrypts it and the digest of its commitment.
func partName(epoch bft.Epoch, commitment bft.Digest) string {
	return fmt.Sprintf("part/%d/%x", epoch, commitment[:])
}

// put writes a small durable record.
func (n *Node) put(name string, value []byte) error {
	batch := n.store.NewBatch()
	err := batch.PutMeta(name, value)
	if err == nil {
		err = batch.Commit(true)
	}
	if err != nil {
		return fmt.Errorf("write to disk: %w", err)
	}
	return nil
}

func (n *Node) storeSharing(epoch bft.Epoch, sharing *threshold.Sharing) error {
	raw, err := sharing.MarshalBinary()
	if err != nil {
		return err
	}
	return n.put(sharingName(epoch), raw)
}

// loadSharing returns the public sharing of an epoch, nil if the disk has none that can be read.
func (n *Node) loadSharing(epoch bft.Epoch) *threshold.Sharing {
	raw, err := n.store.Meta(sharingName(epoch))
	if err != nil || raw == nil {
		return nil
	}
	sharing, err := threshold.ParseSharing(raw)
	if err != nil {
		n.log.Error("the sharing on disk is damaged", "epoch", epoch, "error", err)
		return nil
	}
	return sharing
}

func (n *Node) storePart(vaultKey *[32]byte, epoch bft.Epoch, d heldDealing) error {
	name := partName(epoch, d.commitment.Digest())
	sealed, err := encryptPart(vaultKey, d.part, name)
	if err != nil {
		return err
	}
	commitment, err := d.commitment.MarshalBinary()
	if err != nil {
		return err
	}
	var b cryptobyte.Builder
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(commitment) })
	b.AddBytes(sealed)
	value, err := b.Bytes()
	if err != nil {
		return err
	}
	return n.put(name, value)
}

// loadPart returns a dealing that was stored under the vault key of an epoch.
func (n *Node) loadPart(vaultKey *[32]byte, epoch bft.Epoch, digest bft.Digest) (heldDealing, bool) {
	d, err := n.readPart(vaultKey, partName(epoch, digest))
	return d, err == nil && d.commitment.Digest() == digest && d.verify() == nil
}

func (n *Node) readPart(vaultKey *[32]byte, name string) (d heldDealing, err error) {
	value, err := n.store.Meta(name)
	if err != nil {
		return d, err
	}
	s := cryptobyte.String(value)
	var raw cryptobyte.String
	if !s.ReadUint24LengthPrefixed(&raw) {
		return d, errors.New("no such part on disk")
	}
	if d.commitment, err = threshold.ParseCommitment(raw); err != nil {
		return d, err
	}
	d.part, err = decryptPart(vaultKey, s, name)
	return d, err
}

// forget deletes what was kept for an epoch that is over: parts, which nobody can decrypt any more, and the sharing before it.
func (n *Node) forget(epoch bft.Epoch) error {
	batch := n.store.NewBatch()
	err := batch.DeleteMeta(fmt.Sprintf("part/%d/", epoch))
	if err == nil && epoch > 0 {
		err = batch.DeleteMeta(sharingName(epoch - 1))
	}
	if err == nil {
		err = batch.Commit(false)
	}
	if err != nil {
		return fmt.Errorf("write to disk: %w", err)
	}
	return nil
}
