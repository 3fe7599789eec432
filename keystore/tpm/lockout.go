package tpm

import (
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Bits of TPMA_PERMANENT (Part 2, section 8.6).
const (
	propPermanent   = 0x200
	permLockoutSet  = 1 << 2
	permClearDenied = 1 << 8
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

func isClearDisabled(c *conn) (bool, error) {
	p, err := permanent(c)
	return p&permClearDenied != 0, err
}

// protect keeps others from clearing the TPM: it disables TPM2_Clear, and gives the
// lockout hierarchy an authorization at random, unless somebody gave it one. That one
// is in the directory, and so in its backup, before the TPM knows it. From then on it
// takes the firmware (the platform hierarchy) to clear this TPM. A keystore that is
// made to be tried leaves the TPM as it was.
func (s *Store) protect() error {
	if s.slot == checkSlot {
		return nil
	}
	p, err := s.permanent()
	if err != nil || p&permLockoutSet != 0 {
		return err
	}
	if s.cfg.LockoutAuth, err = newAuth(s.rand); err != nil {
		return err
	}
	if err := s.dir.WriteJSON(configFile, s.cfg); err != nil {
		return err
	}
	return s.operate(func(c *conn) error {
		if err := clearControl(c, tpm2.TPMRHLockout, "", true); err != nil {
			return fmt.Errorf("disable TPM2_Clear: %w", err)
		}
		_, err := tpm2.HierarchyChangeAuth{
			AuthHandle: emptyAuth(tpm2.TPMRHLockout, tpm2.HandleName(tpm2.TPMRHLockout)),
			NewAuth:    tpm2.TPM2BAuth{Buffer: []byte(s.cfg.LockoutAuth)},
		}.Execute(c, s.root.once(in, "")) // encrypts; the answer comes under the new authorization
		if err != nil {
			return fmt.Errorf("authorize the lockout hierarchy: %w", err)
		}
		return nil
	})
}

func (s *Store) permanent() (p uint32, err error) {
	err = s.operate(func(c *conn) error {
		p, err = permanent(c)
		return err
	})
	return p, err
}
