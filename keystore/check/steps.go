package check

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/reseal-bft/reseal/keystore"
	"golang.org/x/sync/errgroup"
)

// share is as large as what a replica seals: a share and a seed.
var share = bytes.Repeat([]byte{0x5a}, 66)

const noAttestation = "Nobody else can tell what this machine booted: replicas with such a keystore are admitted on trust."

// steps are the checks in their order; each builds on the ones before.
func steps() []step {
	return []step{
		{name: "approve the boot state", run: approveBoot,
			means: "An operator's approval opens secrets in this boot state.",
			lacks: "Secrets open whatever this machine booted."},
		{name: "seal and unseal", run: sealAndUnseal,
			means: "A share survives on disk and opens here."},
		{name: "advance to an epoch", run: advance,
			means: "A new epoch begins with what was sealed for it, which opens before the old share ends."},
		{name: "attack: unseal the past", run: unsealPast,
			means: "After an epoch its share is gone."},
		{name: "attack: unseal the past from a copied disk", run: unsealCopy,
			means: "Copies and backups of the disk do not bring a past share back: the device refuses.",
			lacks: "Who copied the disk, and has the passphrase, has the shares of past epochs for ever."},
		{name: "attack: a changed file", run: changedFile,
			means: "What was changed or emptied on disk is refused, and counts as lost."},
		{name: "attack: another boot state", run: otherBoot,
			means: "What booted differently cannot open the share.",
			lacks: "Whoever runs code here with the passphrase or PIN opens the share."},
		{name: "attack: a revoked approval", run: revokedApproval,
			means: "An approval that was revoked does not open the share any more.",
			lacks: "There are no approvals to revoke."},
		{name: "claim the boot", run: claim,
			means: "This process has the keys for as long as the machine is up."},
		{name: "identity signs", run: identitySigns,
			means: "The identity key is in the device and signs for it (ECDSA P-256)."},
		{name: "attack: unseal in a claimed boot", run: unsealClaimed, lacks: noBoots,
			means: "Who comes later in the same boot opens nothing: the device refuses."},
		{name: "attack: a second process", run: secondProcess, lacks: noBoots,
			means: "A process that did not claim the boot neither signs nor attests, though it has the device and a copy of the directory."},
		{name: "quote the boot state", run: quote, lacks: noAttestation,
			means: "The device proves to others what this machine booted, how often and when."},
		{name: "attack: replay a quote", run: replayQuote, lacks: noAttestation,
			means: "A quote for one question does not pass for the answer to another."},
		{name: "attack: evict the keys", run: evicted, lacks: noBoots,
			means: "Who removes keys from the device ends nothing: they are made again, the same."},
		{name: "identity and attestation key in one device", run: enroll, lacks: noAttestation,
			means: "Others can check that the identity key lives where the quotes come from, and who may use both."},
		{name: "endorsement certificate", run: endorsement,
			means: "The maker certified this TPM: a verifier who trusts the maker needs no other proof.",
			lacks: "No maker's certificate: register the endorsement key by hand."},
		{name: "credential activation", run: activate, lacks: noAttestation,
			means: "The attestation key is in the TPM with that endorsement key."},
		{name: "attack: another device's approval", run: foreignApproval, lacks: "There are no approvals.",
			means: "An approval that was made for another TPM is not taken."},
		{name: "four callers at once", run: concurrent,
			means: "Concurrent use is safe."},
	}
}

const noBoots = "The device does not know one boot from another: whoever has it and the PIN or passphrase is the replica."

func claim(b *bench) error {
	if err := b.store.Claim(); err != nil {
		return err
	}
	return b.store.Claim()
}

func unsealClaimed(b *bench) error {
	if _, err := b.attester(); err != nil {
		return err
	}
	_, err := b.store.Unseal(3)
	return expect(err, keystore.ErrClaimed)
}

func secondProcess(b *bench) (err error) {
	if _, err := b.attester(); err != nil {
		return err
	}
	other, err := b.reopen()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, other.Close()) }()
	if _, err := other.Unseal(3); expect(err, keystore.ErrClaimed) != nil {
		return fmt.Errorf("unseal: %w", expect(err, keystore.ErrClaimed))
	}
	if err := expect(other.Claim(), keystore.ErrClaimed); err != nil {
		return fmt.Errorf("claim: %w", err)
	}
	digest := sha256.Sum256(nil)
	if _, err := other.Identity().Sign(rand.Reader, digest[:], crypto.SHA256); expect(err, keystore.ErrUnclaimed) != nil {
		return fmt.Errorf("sign: %w", expect(err, keystore.ErrUnclaimed))
	}
	_, err = other.(keystore.Attester).Quote(nonce)
	return expect(err, keystore.ErrUnclaimed)
}

func evicted(b *bench) error {
	if _, err := b.attester(); err != nil {
		return err
	}
	if err := b.place.EvictKeys(); err != nil {
		return err
	}
	return errors.Join(identitySigns(b), quote(b))
}

func foreignApproval(b *bench) error {
	a, err := b.attester()
	if err != nil {
		return err
	}
	values, err := a.ReadPCRs()
	if err != nil {
		return err
	}
	approval, err := keystore.Approve(rand.Reader, b.place.Operator, keystore.BootState{
		Device: keystore.DeviceID([]byte("another TPM")), PCRs: values, Version: 1 << 40, Slot: checkSlot})
	if err != nil {
		return err
	}
	return expect(a.AddApproval(approval), keystore.ErrForeignDevice)
}

func identitySigns(b *bench) error {
	digest := sha256.Sum256([]byte("reseal keystore check"))
	sig, err := b.store.Identity().Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return err
	}
	pub, ok := b.store.Identity().Public().(*ecdsa.PublicKey)
	if !ok || !ecdsa.VerifyASN1(pub, digest[:], sig) {
		return errors.New("the signature does not verify")
	}
	return nil
}

func approveBoot(b *bench) error {
	if _, err := b.attester(); err != nil {
		return err
	}
	return b.place.Approve(b.store)
}

func sealAndUnseal(b *bench) error {
	if err := b.store.Seal(0, share); err != nil {
		return err
	}
	return opens(b.store, 0)
}

// opens checks that the share of an epoch opens.
func opens(k keystore.Keystore, epoch uint64) error {
	got, err := k.Unseal(epoch)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, share) {
		return fmt.Errorf("epoch %d opened as something else", epoch)
	}
	return nil
}

func advance(b *bench) error {
	if err := b.store.Seal(1, share); err != nil {
		return err
	}
	if err := errors.Join(opens(b.store, 0), opens(b.store, 1)); err != nil {
		return fmt.Errorf("before it begins: %w", err)
	}
	if err := b.store.Advance(1); err != nil {
		return err
	}
	return opens(b.store, 1)
}

func unsealPast(b *bench) error {
	_, err := b.store.Unseal(0)
	return expect(err, keystore.ErrErased)
}

func unsealCopy(b *bench) (err error) {
	if b.status.Kind == "file" {
		return errNotOffered
	}
	old, err := b.reopen()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, old.Close()) }()
	if err := opens(old, 1); err != nil {
		return fmt.Errorf("before the epoch ends: %w", err)
	}
	if err := b.store.Seal(2, share); err != nil {
		return err
	}
	if err := b.store.Advance(2); err != nil {
		return err
	}
	_, err = old.Unseal(1)
	if err := expect(err, keystore.ErrErased); err != nil {
		return err
	}
	var refused *keystore.RefusedError
	if !errors.As(err, &refused) {
		return fmt.Errorf("it was not the device that refused: %w", err)
	}
	return nil
}

func changedFile(b *bench) error {
	if err := b.store.Seal(3, share); err != nil {
		return err
	}
	if err := b.store.Advance(3); err != nil {
		return err
	}
	names, err := filepath.Glob(filepath.Join(b.dir, "sealed-*3"))
	if err != nil || len(names) != 1 {
		return fmt.Errorf("the sealed file is not there: %w", err)
	}
	whole, err := os.ReadFile(names[0])
	if err != nil {
		return err
	}
	changed := bytes.Clone(whole)
	changed[len(changed)/2] ^= 1
	for _, content := range [][]byte{changed, nil} {
		if err := os.WriteFile(names[0], content, 0o600); err != nil {
			return err
		}
		if _, err := b.store.Unseal(3); err == nil {
			return errors.New("it opened")
		}
		st, err := b.store.Status()
		if err != nil {
			return err
		}
		if slices.ContainsFunc(st.Held, func(h keystore.Held) bool { return h.Opens }) {
			return errors.New("it does not open, and the status says that it does")
		}
	}
	if err := os.WriteFile(names[0], whole, 0o600); err != nil {
		return err
	}
	return opens(b.store, 3)
}

func otherBoot(b *bench) error {
	a, err := b.attester()
	if err != nil {
		return err
	}
	if err := a.Extend(checkPCR, sha256.Sum256([]byte("something else"))); err != nil {
		return err
	}
	_, err = b.store.Unseal(3)
	return expect(err, keystore.ErrNotApproved)
}

func revokedApproval(b *bench) error {
	a, err := b.attester()
	if err != nil {
		return err
	}
	if err := approveBoot(b); err != nil {
		return err
	}
	if err := opens(b.store, 3); err != nil {
		return fmt.Errorf("before the revocation: %w", err)
	}
	if _, err := a.RevokeApprovals(b.status.ApprovalVersion); err != nil {
		return err
	}
	if _, err = b.store.Unseal(3); err == nil {
		return errors.New("it opened")
	}
	if err := expect(err, keystore.ErrNotApproved); err != nil {
		return err
	}
	return approveBoot(b)
}

// nonce is what quotes here answer to.
var nonce = bytes.Repeat([]byte{0xa5}, 32)

func quote(b *bench) error {
	a, err := b.attester()
	if err != nil {
		return err
	}
	q, err := a.Quote(nonce)
	if err != nil {
		return err
	}
	_, err = keystore.VerifyQuote(a.AttestationKey(), nonce, q)
	return err
}

func replayQuote(b *bench) error {
	a, err := b.attester()
	if err != nil {
		return err
	}
	q, err := a.Quote(nonce)
	if err != nil {
		return err
	}
	_, err = keystore.VerifyQuote(a.AttestationKey(), bytes.Repeat([]byte{1}, 32), q)
	return expect(err, keystore.ErrInvalid)
}

func enroll(b *bench) error {
	a, err := b.attester()
	if err != nil {
		return err
	}
	e, err := a.Enrollment()
	if err != nil {
		return err
	}
	key, err := keystore.VerifyIdentity(e)
	if err != nil {
		return err
	}
	if !key.Equal(b.store.Identity().Public()) {
		return errors.New("another key is certified")
	}
	return nil
}

func endorsement(b *bench) error {
	a, err := b.attester()
	if err != nil {
		return err
	}
	e, err := a.Enrollment()
	if err != nil {
		return err
	}
	if len(e.Chain) == 0 {
		return errNotOffered
	}
	return nil
}

func activate(b *bench) error {
	a, err := b.attester()
	if err != nil {
		return err
	}
	e, err := a.Enrollment()
	if err != nil {
		return err
	}
	cred, err := keystore.MakeCredential(rand.Reader, e, nonce)
	if err != nil {
		return err
	}
	got, err := a.ActivateCredential(cred)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, nonce) {
		return errors.New("the device returned another secret")
	}
	return nil
}

func concurrent(b *bench) error {
	var g errgroup.Group
	for range 4 {
		g.Go(func() error { return errors.Join(identitySigns(b), b.store.Seal(4, share)) })
	}
	return g.Wait()
}
