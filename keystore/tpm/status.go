package tpm

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore"
)

// Fixed properties of a TPM (TPM_PT).
const (
	propManufacturer = 0x105
	propVendor       = 0x106 // four properties of four characters
	propCount        = 5
)

// Status implements keystore.Keystore.
func (s *Store) Status() (keystore.Status, error) {
	st := keystore.Status{
		Kind: kindName, PCRs: s.pcrs, Identity: keystore.Fingerprint(s.identityKey),
		Capabilities: []string{
			"The identity key was made in the TPM and cannot leave it.",
			"Secrets open only in boot states that the operator's key approved, once in a boot, and only until the next epoch begins; the TPM enforces all three.",
			"The identity key and the attestation key answer to the process that claimed the boot alone; the TPM enforces it.",
			"The TPM proves by quotes what the machine booted, how often and when, and which approvals it refuses.",
		},
		Cautions: []string{
			"A session that was authorized before an epoch ended can unseal it until the TPM is reset.",
		},
	}
	err := s.run(func(c *conn) (err error) {
		if st.Counter, err = s.epochCounter.read(c); err != nil {
			return err
		}
		if st.ApprovalVersion, err = s.approvalCounter.read(c); err != nil {
			return err
		}
		if st.Device, st.Software, err = describe(c); err != nil {
			return err
		}
		if st.ResetCount, err = resetCount(c); err != nil {
			return err
		}
		cautions, err := s.hierarchyCautions(c)
		st.Cautions = append(st.Cautions, cautions...)
		return err
	})
	if err != nil {
		return keystore.Status{}, err
	}
	if st.Software {
		st.Cautions = append(st.Cautions, "This is a software TPM: its state is a file, which can be read, copied and put back.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	current, err := s.presentEpoch(st.Counter)
	if err != nil {
		return keystore.Status{}, err
	}
	st.Epoch = current.Epoch
	if st.Held, err = s.dir.Held(st.Epoch, s.opens); err != nil {
		return keystore.Status{}, err
	}
	approvals, err := s.approvals()
	st.Approvals = len(approvals)
	return st, err
}

// opens tries whether the secret of an epoch opens. The caller holds s.mu.
func (s *Store) opens(epoch uint64) error {
	if _, opened := s.proven[epoch]; opened && s.holder != nil && s.holder.ticket != nil {
		return nil // before this process claimed the boot; now nothing opens
	}
	secret, err := s.unseal(epoch)
	clear(secret)
	return err
}

// resetCount reads how often the machine was reset since the TPM was cleared.
func resetCount(c *conn) (uint32, error) {
	clock, err := tpm2.ReadClock{}.Execute(c)
	if err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	return clock.CurrentTime.ClockInfo.ResetCount, nil
}

// thisBoot is resetCount for who wants to bind something to this boot: in one that was
// suspended, or begun by a restart, it would not tell the boots apart.
func thisBoot(c *conn) (uint32, error) {
	clock, err := tpm2.ReadClock{}.Execute(c)
	if err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	if n := clock.CurrentTime.ClockInfo.RestartCount; n != 0 {
		return 0, fmt.Errorf("%w: the TPM was suspended or restarted %d times since its last reset: reboot the machine", keystore.ErrClaimed, n)
	}
	return clock.CurrentTime.ClockInfo.ResetCount, nil
}

// DeviceCommands returns how many commands this keystore sent to the TPM so far. A
// real one takes 20 to 200 ms for most of them.
func (s *Store) DeviceCommands() int64 { return s.dev.sent.Load() }

// DeviceTime returns how long the TPM took for this keystore's commands so far,
// their way there and back included: what remains of an operation's time is
// this program's.
func (s *Store) DeviceTime() time.Duration { return time.Duration(s.dev.busy.Load()) }

// describe returns the maker and model, and whether it is an emulator.
func describe(c *conn) (string, bool, error) {
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: propManufacturer, PropertyCount: propCount}.Execute(c)
	if err != nil {
		return "", false, fmt.Errorf("read the TPM's properties: %w", err)
	}
	list, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil {
		return "", false, fmt.Errorf("read the TPM's properties: %w", err)
	}
	var maker, model string
	for _, p := range list.TPMProperty {
		text := string(binary.BigEndian.AppendUint32(nil, p.Value))
		switch {
		case p.Property == propManufacturer:
			maker = clean(text)
		case p.Property >= propVendor && p.Property < propManufacturer+propCount:
			model += text
		}
	}
	model = clean(model)
	software := maker == "IBM" || strings.HasPrefix(model, "SW") || strings.HasPrefix(model, "xCG")
	return strings.TrimSpace(maker + " " + model), software, nil
}

// clean keeps the printable ASCII of a property, trimmed.
func clean(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s))
}
