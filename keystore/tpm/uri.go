package tpm

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/reseal-bft/reseal/keystore"
)

// Scheme is how URIs of this backend begin.
const Scheme = "tpm"

// parseURI splits "tpm:ADDRESS?slot=N&owner-auth-source=file:/path", and takes the
// authorizations of the hierarchies into the options.
func parseURI(uri string, o keystore.Options) (address string, slot uint8, _ keystore.Options, err error) {
	rest, ok := strings.CutPrefix(uri, Scheme+":")
	if !ok {
		return "", 0, o, fmt.Errorf("%q is not the URI of a TPM, such as tpm:/dev/tpmrm0", uri)
	}
	address, query, _ := strings.Cut(rest, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", 0, o, fmt.Errorf("%q: query: %w", uri, err)
	}
	for name, v := range values {
		switch name {
		case "slot":
			n, err := strconv.ParseUint(v[0], 10, 8)
			if err != nil {
				return "", 0, o, fmt.Errorf("%q: slot=%s: a slot is a number from 0 to 255", uri, v[0])
			}
			slot = uint8(n)
		case "owner-auth-source":
			if o.OwnerAuth, err = keystore.SecretFrom(v[0]); err != nil {
				return "", 0, o, fmt.Errorf("%q: owner-auth-source: %w", uri, err)
			}
		case "endorsement-auth-source":
			if o.EndorsementAuth, err = keystore.SecretFrom(v[0]); err != nil {
				return "", 0, o, fmt.Errorf("%q: endorsement-auth-source: %w", uri, err)
			}
		default:
			return "", 0, o, fmt.Errorf("%q: unknown attribute %q: a TPM has slot=0 to 255, owner-auth-source and endorsement-auth-source=file:/path or env:NAME", uri, name)
		}
	}
	return address, slot, o, nil
}

// deviceAt returns the TPM at uri, and the slot.
func deviceAt(uri string, o keystore.Options) (*device, uint8, error) {
	address, slot, o, err := parseURI(uri, o)
	if err != nil {
		return nil, 0, err
	}
	d, err := newDevice(address, o)
	return d, slot, err
}
