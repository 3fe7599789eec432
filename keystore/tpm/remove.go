package tpm

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore"
)

// EvictKeys removes the persistent keys of a slot of the TPM at uri. They are made
// again when they are needed.
func EvictKeys(ctx context.Context, uri string, o keystore.Options) error {
	dev, slot, err := deviceAt(uri, o)
	if err != nil {
		return err
	}
	return dev.run(ctx, func(c *conn) error { return evictKeys(c, &config{Slot: slot}) })
}

func evictKeys(c *conn, cfg *config) error {
	for _, h := range []tpm2.TPMHandle{cfg.attestationHandle(), cfg.rootHandles()[1]} {
		if err := evict(c, h); err != nil {
			return err
		}
	}
	return nil
}

// Remove removes what a keystore has in the TPM at uri: the counters and the
// attestation key of its slot. The identity is gone with its directory. The storage
// root key stays, as other software may use it, and so do the authorizations of the
// hierarchies.
func Remove(ctx context.Context, uri string, o keystore.Options) error {
	dev, slot, err := deviceAt(uri, o)
	if err != nil {
		return err
	}
	cfg := &config{Slot: slot}
	return dev.run(ctx, func(c *conn) error {
		if err := evictKeys(c, cfg); err != nil {
			return err
		}
		for _, index := range []uint32{keystore.EpochCounter(slot), keystore.ApprovalCounter(slot)} {
			if err := newCounter(index, "", nil).undefine(c); err != nil {
				return err
			}
		}
		return nil
	})
}

// evict removes a persistent key, if it is there.
func evict(c *conn, h tpm2.TPMHandle) error {
	_, name, err := readPublic(c, h)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = tpm2.EvictControl{
		Auth:             c.hierarchy(tpm2.TPMRHOwner),
		ObjectHandle:     tpm2.NamedHandle{Handle: h, Name: name},
		PersistentHandle: h,
	}.Execute(c)
	if err != nil {
		return fmt.Errorf("evict %#x: %w", uint32(h), ownedBy(err))
	}
	return nil
}

// RemoveRoot evicts the storage root key. Only who made it should: what other
// software keeps under it does not load until it is made again.
func RemoveRoot(ctx context.Context, uri string, o keystore.Options) error {
	dev, _, err := deviceAt(uri, o)
	if err != nil {
		return err
	}
	return dev.run(ctx, func(c *conn) error { return evict(c, rootHandle) })
}

// RootHandle is the persistent handle of the storage root key.
const RootHandle = uint32(rootHandle)

// Handle ranges that Inventory lists: NV indices, loaded and saved sessions,
// transient and persistent objects.
var inventoried = []uint32{0x01000000, 0x02000000, 0x03000000, 0x80000000, 0x81000000}

// Inventory lists the handles of everything that is in the TPM at uri at the
// moment, ascending: NV indices, sessions, transient and persistent objects.
func Inventory(ctx context.Context, uri string, o keystore.Options) ([]uint32, error) {
	dev, _, err := deviceAt(uri, o)
	if err != nil {
		return nil, err
	}
	var all []uint32
	err = dev.run(ctx, func(c *conn) error {
		for _, first := range inventoried {
			handles, err := c.handles(first)
			if err != nil {
				return err
			}
			for _, h := range handles {
				all = append(all, uint32(h))
			}
		}
		return nil
	})
	slices.Sort(all)
	return slices.Compact(all), err
}

// ResetPCR sets a PCR to zero. TPMs allow it for PCRs 16 (debug) and 23
// (application) only.
func ResetPCR(ctx context.Context, uri string, pcr int, o keystore.Options) error {
	dev, _, err := deviceAt(uri, o)
	if err != nil {
		return err
	}
	return dev.run(ctx, func(c *conn) error {
		_, err := tpm2.PCRReset{PCRHandle: tpm2.AuthHandle{
			Handle: tpm2.TPMHandle(pcr), Name: tpm2.HandleName(tpm2.TPMHandle(pcr)), Auth: tpm2.PasswordAuth(nil),
		}}.Execute(c)
		if err != nil {
			return fmt.Errorf("reset PCR %d: %w", pcr, err)
		}
		return nil
	})
}
