package check

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/reseal-bft/reseal/hsm"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/file"
	"github.com/reseal-bft/reseal/keystore/tpm"
)

const (
	checkSlot = 255            // of a TPM
	checkName = "reseal-check" // in a token
	checkPCR  = 16             // the debug PCR, which can be set back to zero
)

// Place is a place on a device where no keystore of the user is, and how the
// device was before. Its keystore is made by device.Init(ctx, URI, Options...).
// Whoever made it calls CleanUp.
type Place struct {
	URI      string
	Dir      string // of the keystore
	Options  []keystore.Option
	Operator *ecdsa.PrivateKey // approves boot states

	ctx     context.Context
	clean   func() error
	evict   func() error // nil: there are none
	reset   func() error // nil: it knows no boots
	cleaned bool
}

// NewPlace chooses a place on the device at uri. The directory of its keystore is
// in scratch.
func NewPlace(ctx context.Context, uri, scratch string, opts []keystore.Option) (*Place, error) {
	operator, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	pcrs, err := keystore.Select(checkPCR)
	if err != nil {
		return nil, err
	}
	// A check that was interrupted still cleans up.
	p := &Place{ctx: context.WithoutCancel(ctx), URI: uri, Operator: operator, Dir: filepath.Join(scratch, "keystore")}
	p.Options = append(slices.Clone(opts),
		keystore.WithDir(p.Dir), keystore.WithOperatorKey(&operator.PublicKey), keystore.WithPCRs(pcrs))
	o := keystore.NewOptions(p.Options...)
	scheme, _, _ := strings.Cut(uri, ":")
	switch scheme {
	case tpm.Scheme:
		return p, p.onTPM(o)
	case hsm.Scheme:
		return p, p.onToken(o)
	case file.Scheme:
		p.onFiles(o)
		return p, nil
	}
	return nil, fmt.Errorf("%q is not the URI of a keystore: write tpm:/dev/tpmrm0, pkcs11:token=NAME?module-path=/path.so or file:/path", uri)
}

// Approve approves the state that the machine is in, where the keystore asks for
// approvals.
func (p *Place) Approve(k keystore.Keystore) error {
	a, ok := k.(keystore.Attester)
	if !ok {
		return nil
	}
	st, err := k.Status()
	if err != nil {
		return err
	}
	values, err := a.ReadPCRs()
	if err != nil {
		return err
	}
	approval, err := keystore.Approve(rand.Reader, p.Operator,
		keystore.BootState{Device: a.DeviceID(), PCRs: values, Version: st.ApprovalVersion, Slot: checkSlot})
	if err != nil {
		return err
	}
	return a.AddApproval(approval)
}

// onTPM takes a slot that nobody uses.
func (p *Place) onTPM(o keystore.Options) error {
	address, query, _ := strings.Cut(p.URI, "?")
	p.URI = fmt.Sprintf("%s?slot=%d", address, checkSlot)
	for attribute := range strings.SplitSeq(query, "&") { // such as the owner's authorization
		if attribute != "" && !strings.HasPrefix(attribute, "slot=") {
			p.URI += "&" + attribute
		}
	}
	before, err := tpm.Inventory(p.ctx, p.URI, o)
	if err != nil {
		return err
	}
	values, err := tpm.ReadPCRs(p.ctx, p.URI, o.PCRs, o)
	if err != nil {
		return err
	}
	if values[0].Digest != [32]byte{} {
		return fmt.Errorf("PCR %d is in use: this check needs it", checkPCR)
	}
	p.reset = func() error { return tpm.ResetPCR(p.ctx, p.URI, checkPCR, o) }
	p.evict = func() error { return tpm.EvictKeys(p.ctx, p.URI, o) }
	p.clean = func() error {
		err := errors.Join(p.reset(), tpm.Remove(p.ctx, p.URI, o))
		if !slices.Contains(before, tpm.RootHandle) {
			err = errors.Join(err, tpm.RemoveRoot(p.ctx, p.URI, o))
		}
		after, listErr := tpm.Inventory(p.ctx, p.URI, o)
		if listErr == nil && !slices.Equal(before, after) {
			err = errors.Join(err, fmt.Errorf("the TPM held %#x before, and holds %#x after the check", before, after))
		}
		return errors.Join(err, listErr)
	}
	return nil
}

// Reset brings the device back into the boot state in which nobody claimed it, where
// it knows such states: the PCR of checks is one that can be set back.
func (p *Place) Reset() error {
	if p.reset == nil {
		return nil
	}
	return p.reset()
}

// EvictKeys removes the keys that the keystore has in the device and can make again.
func (p *Place) EvictKeys() error {
	if p.evict == nil {
		return nil
	}
	return p.evict()
}

// onToken takes a name that nobody uses.
func (p *Place) onToken(o keystore.Options) error {
	path, query, _ := strings.Cut(p.URI, "?")
	var kept []string
	for part := range strings.SplitSeq(path, ";") {
		if !strings.HasPrefix(part, "object=") {
			kept = append(kept, part)
		}
	}
	p.URI = strings.Join(append(kept, "object="+checkName), ";") + "?" + query
	before, err := hsm.Inventory(p.ctx, p.URI, o)
	if err != nil {
		return err
	}
	p.clean = func() error {
		err := hsm.Remove(p.ctx, p.URI, o)
		after, listErr := hsm.Inventory(p.ctx, p.URI, o)
		if listErr == nil && after != before {
			err = errors.Join(err, fmt.Errorf("the token held %d objects before, and holds %d after the check", before, after))
		}
		return errors.Join(err, listErr)
	}
	return nil
}

// onFiles goes to the scratch directory, with a passphrase if none is given:
// what is checked is the code, not the user's files.
func (p *Place) onFiles(o keystore.Options) {
	if o.Passphrase.IsZero() {
		p.Options = append(p.Options, keystore.WithPassphrase(keystore.NewSecret([]byte("check"))))
	}
	p.URI = p.uriFor(p.Dir)
	p.clean = func() error { return nil }
}

// uriFor is the URI for another directory: of files, the directory is part of
// the URI.
func (p *Place) uriFor(dir string) string {
	if strings.HasPrefix(p.URI, file.Scheme+":") {
		return file.Scheme + ":" + dir
	}
	return p.URI
}

// CleanUp removes what was made, once, and checks that the
// device is as it was.
func (p *Place) CleanUp() error {
	if p.cleaned {
		return nil
	}
	p.cleaned = true
	return p.clean()
}
