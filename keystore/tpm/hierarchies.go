package tpm

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/mutant"
)

// HierarchiesFile is where Init writes the authorization that it gave the hierarchies
// of the TPM, in the keystore's directory. The keystore does not need it again: it
// belongs where the operators keep their keys, off the machine.
const HierarchiesFile = "hierarchies.auth"

// Bits of TPMA_PERMANENT (Part 2, section 8.6).
const (
	propPermanent      = 0x200
	permOwnerSet       = 1 << 0
	permEndorsementSet = 1 << 1
	permLockoutSet     = 1 << 2
	permClearDenied    = 1 << 8
	permAll            = permOwnerSet | permEndorsementSet | permLockoutSet
)

// permanent reads TPMA_PERMANENT.
func permanent(c *conn) (uint32, error) {
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: propPermanent, PropertyCount: 1}.Execute(c)
	if err != nil {
		return 0, fmt.Errorf("read the TPM's properties: %w", err)
	}
	list, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil || len(list.TPMProperty) != 1 || list.TPMProperty[0].Property != propPermanent {
		return 0, fmt.Errorf("read the TPM's properties: unexpected answer: %w", err)
	}
	return list.TPMProperty[0].Value, nil
}

// admitted reads which hierarchies have an authorization, and refuses a TPM that has an
// owner whom the caller does not speak for.
func (s *Store) admitted(c *conn) (set uint32, err error) {
	if set, err = permanent(c); err != nil {
		return 0, err
	}
	for _, h := range []struct {
		name, attribute string
		bit             uint32
		given           authorization
	}{
		{"owner", "owner-auth-source", permOwnerSet, c.device.owner},
		{"endorsement", "endorsement-auth-source", permEndorsementSet, c.device.endorsement},
	} {
		if set&h.bit != 0 && h.given == "" {
			return 0, fmt.Errorf("%w: its %s hierarchy has an authorization, by the machine's owner or by a keystore that was made on it (%s): "+
				"give it by %s=file:/path or env:NAME in the URI; if a replica's directory was lost, make it again with --backup FILE instead; "+
				"or clear the TPM in the firmware's setup, which ends whatever is in it, and a replica's seat for good",
				keystore.ErrOwned, h.name, HierarchiesFile, h.attribute)
		}
	}
	if set&permOwnerSet == 0 && c.device.owner != "" {
		return 0, errors.New("the owner hierarchy of this TPM has no authorization: leave owner-auth-source out, and one is made")
	}
	if set&permEndorsementSet == 0 {
		c.device.endorsement = ""
	}
	return set, nil
}

// takeHierarchies keeps everybody else who reaches the TPM from ending the keystore: it
// disables TPM2_Clear, and gives the owner, endorsement and lockout hierarchies an
// authorization at random, but for those that have one. It is on disk before the TPM
// knows it. What others may go on doing by the endorsement hierarchy is to ask for the
// time, which a quote does. A keystore that is made to be tried leaves the TPM as it was.
func (s *Store) takeHierarchies(set uint32) error {
	if s.slot == checkSlot || mutant.Is(mutant.OpenHierarchies) {
		return nil
	}
	var value authorization
	if set&permAll != permAll {
		if _, err := s.dir.Read(HierarchiesFile); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(fmt.Errorf("%s holds %s of an Init that did not end: move it away, and give it by owner-auth-source or endorsement-auth-source to a TPM that asks for it",
				s.dir.Path(), HierarchiesFile), err)
		}
		var err error
		if value, err = newAuth(s.rand); err != nil {
			return err
		}
		if err := s.dir.Write(HierarchiesFile, []byte(value+"\n")); err != nil {
			return err
		}
	}
	if set&permLockoutSet == 0 {
		// Only the platform hierarchy allows it again.
		if err := s.operate(func(c *conn) error { return s.root.disableClear(c, "") }); err != nil {
			return fmt.Errorf("disable TPM2_Clear: %w", err)
		}
		if err := s.takeHierarchy(tpm2.TPMRHLockout, "lockout", value); err != nil {
			return err
		}
	}
	if set&permEndorsementSet == 0 {
		if err := s.takeHierarchy(tpm2.TPMRHEndorsement, "endorsement", value); err != nil {
			return err
		}
		s.dev.endorsement = value
	}
	err := s.operate(func(c *conn) error {
		policy := keystore.TimePolicy()
		return s.root.setPolicy(c, tpm2.TPMRHEndorsement, s.dev.endorsement, policy[:])
	})
	if err != nil {
		return fmt.Errorf("let the endorsement hierarchy tell the time: %w", err)
	}
	if set&permOwnerSet == 0 {
		if err := s.takeHierarchy(tpm2.TPMRHOwner, "owner", value); err != nil {
			return err
		}
		s.dev.owner = value
	}
	return nil
}

// takeHierarchy gives a hierarchy that has none an authorization, and takes away the
// policy that somebody may have given it: before, so that a crash leaves none, and
// afterwards, when nobody gives it another. The session encrypts the authorization; the
// answer comes under the new one.
func (s *Store) takeHierarchy(h tpm2.TPMHandle, name string, value authorization) error {
	for _, step := range []func(c *conn) error{
		func(c *conn) error { return s.root.setPolicy(c, h, "", nil) },
		func(c *conn) error {
			_, err := tpm2.HierarchyChangeAuth{
				AuthHandle: emptyAuth(h, tpm2.HandleName(h)),
				NewAuth:    tpm2.TPM2BAuth{Buffer: []byte(value)},
			}.Execute(c, s.root.once(in, ""))
			return err
		},
		func(c *conn) error { return s.root.setPolicy(c, h, value, nil) },
	} {
		if err := s.operate(step); err != nil {
			return fmt.Errorf("authorize the %s hierarchy: %w", name, err)
		}
	}
	return nil
}

// ownedBy explains that a hierarchy wants an authorization.
func ownedBy(err error) error {
	if errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail) {
		return fmt.Errorf("%w: that takes the authorization of its hierarchies: give what is in %s, or what the machine's owner set, once, "+
			"by owner-auth-source=file:/path or env:NAME in the URI (and endorsement-auth-source, where it is another): %w", keystore.ErrOwned, HierarchiesFile, err)
	}
	return err
}

// hierarchyCautions says what others can do to the keystore by the TPM's hierarchies.
func (s *Store) hierarchyCautions(c *conn) (cautions []string, err error) {
	if s.slot == checkSlot {
		return nil, nil
	}
	set, err := permanent(c)
	if err != nil {
		return nil, err
	}
	if set&permOwnerSet == 0 || set&permEndorsementSet == 0 {
		cautions = append(cautions, "The owner or endorsement hierarchy has no authorization: who reaches the TPM ends the keystore. Give both one (tpm2_changeauth).")
	}
	if set&permClearDenied == 0 {
		cautions = append(cautions, "TPM2_Clear is not disabled: who has the lockout authorization ends the keystore with one command.")
	}
	if _, err := s.dir.Read(HierarchiesFile); !errors.Is(err, fs.ErrNotExist) {
		cautions = append(cautions, "The authorization of the TPM's hierarchies is still in "+s.dir.Path()+" ("+HierarchiesFile+"): move it to where the operators keep their keys.")
	}
	return cautions, nil
}
