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

// target is the place of the check on a device, and how it was before.
type target struct {
	ctx      context.Context
	uri      string
	dir      string
	opts     []keystore.Option
	operator *ecdsa.PrivateKey
	clean    func() error
	cleaned  bool
}

// newTarget chooses a place where no keystore of the user is.
func newTarget(ctx context.Context, uri, scratch string, opts []keystore.Option) (*target, error) {
	operator, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	pcrs, err := keystore.Select(checkPCR)
	if err != nil {
		return nil, err
	}
	t := &target{ctx: ctx, uri: uri, operator: operator, dir: filepath.Join(scratch, "keystore")}
	t.opts = append(slices.Clone(opts),
		keystore.WithDir(t.dir), keystore.WithOperatorKey(&operator.PublicKey), keystore.WithPCRs(pcrs))
	o := keystore.NewOptions(t.opts...)
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

// onTPM takes a slot that nobody uses.
func (t *target) onTPM(o keystore.Options) error {
	address, _, _ := strings.Cut(t.uri, "?")
	t.uri = fmt.Sprintf("%s?slot=%d", address, checkSlot)
	before, err := tpm.Inventory(t.ctx, t.uri, o)
	if err != nil {
		return err
	}
	values, err := tpm.ReadPCRs(t.ctx, t.uri, o.PCRs, o)
	if err != nil {
		return err
	}
	if values[0].Digest != [32]byte{} {
		return fmt.Errorf("PCR %d is in use: this check needs it", checkPCR)
	}
	t.clean = func() error {
		err := errors.Join(tpm.ResetPCR(t.ctx, t.uri, checkPCR, o), tpm.Remove(t.ctx, t.uri, o))
		if !slices.Contains(before, tpm.RootHandle) {
			err = errors.Join(err, tpm.RemoveRoot(t.ctx, t.uri, o))
		}
		after, listErr := tpm.Inventory(t.ctx, t.uri, o)
		if listErr == nil && !slices.Equal(before, after) {
			err = errors.Join(err, fmt.Errorf("the TPM held %#x before, and holds %#x after the check", before, after))
		}
		return errors.Join(err, listErr)
	}
	return nil
}

// onToken takes a name that nobody uses.
func (t *target) onToken(o keystore.Options) error {
	path, query, _ := strings.Cut(t.uri, "?")
	var kept []string
	for part := range strings.SplitSeq(path, ";") {
		if !strings.HasPrefix(part, "object=") {
			kept = append(kept, part)
		}
	}
	t.uri = strings.Join(append(kept, "object="+checkName), ";") + "?" + query
	before, err := hsm.Inventory(t.ctx, t.uri, o)
	if err != nil {
		return err
	}
	t.clean = func() error {
		err := hsm.Remove(t.ctx, t.uri, o)
		after, listErr := hsm.Inventory(t.ctx, t.uri, o)
		if listErr == nil && after != before {
			err = errors.Join(err, fmt.Errorf("the token held %d objects before, and holds %d after the check", before, after))
		}
		return errors.Join(err, listErr)
	}
	return nil
}

// onFiles goes to the scratch directory, with a passphrase if none is given:
// what is checked is the code, not the user's files.
func (t *target) onFiles(o keystore.Options) {
	if o.Passphrase.IsZero() {
		t.opts = append(t.opts, keystore.WithPassphrase(keystore.NewSecret([]byte("check"))))
	}
	t.uri = t.uriFor(t.dir)
	t.clean = func() error { return nil }
}

// uriFor is the URI for another directory: of files, the directory is part of
// the URI.
func (t *target) uriFor(dir string) string {
	if strings.HasPrefix(t.uri, file.Scheme+":") {
		return file.Scheme + ":" + dir
	}
	return t.uri
}

// cleanUp removes what the check made, once.
func (t *target) cleanUp() error {
	if t.cleaned {
		return nil
	}
	t.cleaned = true
	return t.clean()
}
