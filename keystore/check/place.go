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
	t := &Place{ctx: ctx, URI: uri, Operator: operator, Dir: filepath.Join(scratch, "keystore")}
	t.Options = append(slices.Clone(opts),
		keystore.WithDir(t.Dir), keystore.WithOperatorKey(&operator.PublicKey), keystore.WithPCRs(pcrs))
	o := keystore.NewOptions(t.Options...)
	scheme, _, _ := strings.Cut(uri, ":")
	switch scheme {
	case tpm.Scheme:
		return t, t.onTPM(o)
	case hsm.Scheme:
		return t, t.onToken(o)
	case file.Scheme:
		t.onFiles(o)
		return t, nil
	}
	return nil, fmt.Errorf("%q is not the URI of a keystore: it begins with tpm:, pkcs11: or file:", uri)
}

// Approve approves the state that the machine is in, where the keystore asks for
// approvals.
func (t *Place) Approve(k keystore.Keystore) error {
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
	approval, err := keystore.Approve(rand.Reader, t.Operator,
		keystore.BootState{PCRs: values, Version: st.ApprovalVersion, Slot: checkSlot})
	if err != nil {
		return err
	}
	return a.AddApproval(approval)
}

// onTPM takes a slot that nobody uses.
func (t *Place) onTPM(o keystore.Options) error {
	address, _, _ := strings.Cut(t.URI, "?")
	t.URI = fmt.Sprintf("%s?slot=%d", address, checkSlot)
	before, err := tpm.Inventory(t.ctx, t.URI, o)
	if err != nil {
		return err
	}
	values, err := tpm.ReadPCRs(t.ctx, t.URI, o.PCRs, o)
	if err != nil {
		return err
	}
	if values[0].Digest != [32]byte{} {
		return fmt.Errorf("PCR %d is in use: this check needs it", checkPCR)
	}
	t.clean = func() error {
		err := errors.Join(tpm.ResetPCR(t.ctx, t.URI, checkPCR, o), tpm.Remove(t.ctx, t.URI, o))
		if !slices.Contains(before, tpm.RootHandle) {
			err = errors.Join(err, tpm.RemoveRoot(t.ctx, t.URI, o))
		}
		after, listErr := tpm.Inventory(t.ctx, t.URI, o)
		if listErr == nil && !slices.Equal(before, after) {
			err = errors.Join(err, fmt.Errorf("the TPM held %#x before, and holds %#x after the check", before, after))
		}
		return errors.Join(err, listErr)
	}
	return nil
}

// onToken takes a name that nobody uses.
func (t *Place) onToken(o keystore.Options) error {
	path, query, _ := strings.Cut(t.URI, "?")
	var kept []string
	for part := range strings.SplitSeq(path, ";") {
		if !strings.HasPrefix(part, "object=") {
			kept = append(kept, part)
		}
	}
	t.URI = strings.Join(append(kept, "object="+checkName), ";") + "?" + query
	before, err := hsm.Inventory(t.ctx, t.URI, o)
	if err != nil {
		return err
	}
	t.clean = func() error {
		err := hsm.Remove(t.ctx, t.URI, o)
		after, listErr := hsm.Inventory(t.ctx, t.URI, o)
		if listErr == nil && after != before {
			err = errors.Join(err, fmt.Errorf("the token held %d objects before, and holds %d after the check", before, after))
		}
		return errors.Join(err, listErr)
	}
	return nil
}

// onFiles goes to the scratch directory, with a passphrase if none is given:
// what is checked is the code, not the user's files.
func (t *Place) onFiles(o keystore.Options) {
	if o.Passphrase.IsZero() {
		t.Options = append(t.Options, keystore.WithPassphrase(keystore.NewSecret([]byte("check"))))
	}
	t.URI = t.uriFor(t.Dir)
	t.clean = func() error { return nil }
}

// uriFor is the URI for another directory: of files, the directory is part of
// the URI.
func (t *Place) uriFor(dir string) string {
	if strings.HasPrefix(t.URI, file.Scheme+":") {
		return file.Scheme + ":" + dir
	}
	return t.URI
}

// CleanUp removes what was made, once, and checks that the
// device is as it was.
func (t *Place) CleanUp() error {
	if t.cleaned {
		return nil
	}
	t.cleaned = true
	return t.clean()
}
