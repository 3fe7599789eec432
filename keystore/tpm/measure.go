package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore"
)

// Extend folds a measurement into a PCR of the SHA-256 bank of the TPM at uri.
// It is for launchers, which measure before there is a keystore.
func Extend(ctx context.Context, uri string, pcr int, digest [32]byte, o keystore.Options) error {
	dev, _, err := deviceAt(uri, o)
	if err != nil {
		return err
	}
	return dev.run(ctx, func(c *conn) error { return extend(c, pcr, digest) })
}

// DisablePlatform ends the use of the platform hierarchy of the TPM at uri until its
// next reset. Firmware does so before it starts an operating system; a launcher that
// stands for the firmware of a software TPM has to do it, or everybody who reaches the
// TPM can clear it.
func DisablePlatform(ctx context.Context, uri string, o keystore.Options) error {
	dev, _, err := deviceAt(uri, o)
	if err != nil {
		return err
	}
	return dev.run(ctx, func(c *conn) error {
		err := disablePlatform(c)
		if errors.Is(err, tpm2.TPMRCHierarchy) || errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail) {
			return nil // it is, or the firmware has it
		}
		if err != nil {
			return fmt.Errorf("disable the platform hierarchy: %w", err)
		}
		return nil
	})
}

// ReadPCRs returns PCRs of the SHA-256 bank of the TPM at uri.
func ReadPCRs(ctx context.Context, uri string, s keystore.Selection, o keystore.Options) (values []keystore.PCRValue, err error) {
	dev, _, err := deviceAt(uri, o)
	if err != nil {
		return nil, err
	}
	err = dev.run(ctx, func(c *conn) error {
		values, err = readPCRs(c, s)
		return err
	})
	return values, err
}

// Extend implements keystore.Attester.
func (s *Store) Extend(pcr int, digest [32]byte) error {
	return s.run(func(c *conn) error { return extend(c, pcr, digest) })
}

// ReadPCRs implements keystore.Attester.
func (s *Store) ReadPCRs() (values []keystore.PCRValue, err error) {
	err = s.run(func(c *conn) error {
		values, err = readPCRs(c, s.pcrs)
		return err
	})
	return values, err
}

func extend(c *conn, pcr int, digest [32]byte) error {
	if _, err := keystore.Select(pcr); err != nil {
		return err
	}
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{
			Handle: tpm2.TPMHandle(pcr), Name: tpm2.HandleName(tpm2.TPMHandle(pcr)), Auth: tpm2.PasswordAuth(nil),
		},
		Digests: tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: digest[:]}}},
	}.Execute(c)
	if err != nil {
		return fmt.Errorf("extend PCR %d: %w", pcr, err)
	}
	return nil
}

// readPCRs reads a selection. A TPM gives up to eight values at a time.
func readPCRs(c *conn, s keystore.Selection) ([]keystore.PCRValue, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	var values []keystore.PCRValue
	for missing := s; missing != 0; {
		rsp, err := tpm2.PCRRead{PCRSelectionIn: pcrSelection(missing)}.Execute(c)
		if err != nil {
			return nil, fmt.Errorf("read PCRs: %w", err)
		}
		got, err := returned(rsp)
		if err != nil {
			return nil, err
		}
		indexes := got.Indexes()
		if got == 0 || got&^missing != 0 || len(indexes) != len(rsp.PCRValues.Digests) {
			return nil, fmt.Errorf("read PCRs: the TPM has no PCRs %v of the SHA-256 bank", missing)
		}
		for i, d := range rsp.PCRValues.Digests {
			if len(d.Buffer) != 32 {
				return nil, fmt.Errorf("read PCRs: a value has %d bytes", len(d.Buffer))
			}
			values = append(values, keystore.PCRValue{Index: indexes[i], Digest: [32]byte(d.Buffer)})
		}
		missing &^= got
	}
	return values, nil
}

// returned is the set of PCRs that a response holds.
func returned(rsp *tpm2.PCRReadResponse) (keystore.Selection, error) {
	var bitmap [4]byte
	for _, s := range rsp.PCRSelectionOut.PCRSelections {
		if s.Hash == tpm2.TPMAlgSHA256 && len(s.PCRSelect) <= len(bitmap) {
			copy(bitmap[:], s.PCRSelect)
		}
	}
	got := keystore.Selection(binary.LittleEndian.Uint32(bitmap[:]))
	if got >= 1<<keystore.NumPCRs {
		return 0, fmt.Errorf("read PCRs: the TPM answers for PCRs that are not there")
	}
	return got, nil
}

// pcrSelection is the TPM's form of a selection.
func pcrSelection(s keystore.Selection) tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
		Hash:      tpm2.TPMAlgSHA256,
		PCRSelect: []byte{byte(s), byte(s >> 8), byte(s >> 16)},
	}}}
}
