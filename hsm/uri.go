package hsm

import (
	"fmt"
	"net/url"
	"strings"
)

// Scheme is how URIs of this backend begin.
const Scheme = "pkcs11"

const (
	defaultName = "reseal"
	maxName     = 64
)

// locator says which token of which module, by RFC 7512.
type locator struct {
	module    string // path of the shared library
	label     string // of the token
	serial    string
	name      string // prefix of the labels of the objects
	pinSource string // file:/path or env:NAME
	setup     setup
}

// setup is what a library wants at its initialisation.
type setup struct {
	reserved string // an argument, as NSS wants one
	softHSM  string // SoftHSM's configuration file, for its environment variable
}

// ParseURI checks a URI without touching the token it names.
func ParseURI(uri string) error {
	_, err := parseURI(uri)
	return err
}

// parseURI reads "pkcs11:token=NAME;serial=S;object=O?module-path=P&pin-source=S",
// and two attributes for the initialisation of particular libraries:
// x-init-reserved (which p11-kit has too) for NSS, x-softhsm2-conf for SoftHSM.
// Attributes that choose nothing here are refused, rather than ignored.
func parseURI(uri string) (*locator, error) {
	rest, ok := strings.CutPrefix(uri, Scheme+":")
	if !ok {
		return nil, fmt.Errorf("%q is not the URI of a token, which begins with pkcs11: as in RFC 7512", uri)
	}
	l := locator{name: defaultName}
	path, query, _ := strings.Cut(rest, "?")
	err := attributes(path, ";", map[string]*string{"token": &l.label, "serial": &l.serial, "object": &l.name})
	if err != nil {
		return nil, fmt.Errorf("PKCS#11 URI: %w", err)
	}
	err = attributes(query, "&", map[string]*string{
		"module-path": &l.module, "pin-source": &l.pinSource, "x-init-reserved": &l.setup.reserved, "x-softhsm2-conf": &l.setup.softHSM,
	})
	if err != nil {
		return nil, fmt.Errorf("PKCS#11 URI: %w", err)
	}
	switch {
	case l.module == "":
		return nil, fmt.Errorf("PKCS#11 URI: module-path is missing: the path of the token's library, for example ?module-path=/usr/lib/softhsm/libsofthsm2.so")
	case l.label == "" && l.serial == "":
		return nil, fmt.Errorf("PKCS#11 URI: name the token by token=LABEL or serial=NUMBER (slot numbers change)")
	case l.name == "" || len(l.name) > maxName:
		return nil, fmt.Errorf("PKCS#11 URI: object has 1 to %d bytes", maxName)
	}
	return &l, nil
}

// attributes reads name=value pairs into the variables of the known names.
func attributes(s, separator string, known map[string]*string) error {
	if s == "" {
		return nil
	}
	seen := make(map[string]bool)
	for pair := range strings.SplitSeq(s, separator) {
		name, value, _ := strings.Cut(pair, "=")
		if name == "pin-value" {
			return fmt.Errorf("pin-value would show the PIN to every user of this machine: use pin-source=file:/path or pin-source=env:NAME")
		}
		variable, ok := known[name]
		if !ok {
			return fmt.Errorf("the attribute %q chooses nothing here", name)
		}
		if seen[name] {
			return fmt.Errorf("the attribute %q is there twice", name)
		}
		seen[name] = true
		text, err := url.PathUnescape(value)
		if err != nil {
			return fmt.Errorf("the attribute %q: %w", name, err)
		}
		*variable = text
	}
	return nil
}
