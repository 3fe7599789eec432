package device

import (
	"context"
	"fmt"
	"strings"

	"github.com/reseal-bft/reseal/hsm"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/file"
	"github.com/reseal-bft/reseal/keystore/tpm"
)

// backend is how a kind of device is opened and made.
type backend struct {
	open func(ctx context.Context, uri string, o keystore.Options) (keystore.Keystore, error)
	init func(ctx context.Context, uri string, o keystore.Options) (keystore.Keystore, error)
}

// backends by the scheme of their URIs.
var backends = map[string]backend{
	tpm.Scheme: {
		open: adapt(tpm.Open),
		init: adapt(tpm.Init),
	},
	hsm.Scheme: {
		open: adapt(hsm.Open),
		init: adapt(hsm.Init),
	},
	file.Scheme: {
		open: adapt(file.Open),
		init: adapt(file.Init),
	},
}

// adapt turns a function that returns a backend's own type into one that
// returns the interface, nil on an error.
func adapt[K keystore.Keystore](f func(context.Context, string, keystore.Options) (K, error)) func(context.Context, string, keystore.Options) (keystore.Keystore, error) {
	return func(ctx context.Context, uri string, o keystore.Options) (keystore.Keystore, error) {
		k, err := f(ctx, uri, o)
		if err != nil {
			return nil, err
		}
		return k, nil
	}
}

// Open opens the keystore that Init made on the device at uri.
func Open(ctx context.Context, uri string, opts ...keystore.Option) (keystore.Keystore, error) {
	b, err := find(uri)
	if err != nil {
		return nil, err
	}
	return b.open(ctx, uri, keystore.NewOptions(opts...))
}

// Init makes a keystore on the device at uri, and opens it.
func Init(ctx context.Context, uri string, opts ...keystore.Option) (keystore.Keystore, error) {
	b, err := find(uri)
	if err != nil {
		return nil, err
	}
	return b.init(ctx, uri, keystore.NewOptions(opts...))
}

func find(uri string) (backend, error) {
	scheme, _, _ := strings.Cut(uri, ":")
	b, ok := backends[scheme]
	if !ok {
		return b, fmt.Errorf("%q is not the URI of a keystore: write tpm:/dev/tpmrm0, pkcs11:token=NAME?module-path=/path.so or file:/path", uri)
	}
	return b, nil
}
