package cluster

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"path/filepath"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/hsm/softhsm"
	"github.com/reseal-bft/reseal/keystore/swtpm"
)

// maker makes the devices that keep the replicas' keys. Safe for concurrent use.
type maker struct {
	ca     *swtpm.CA        // of software TPMs
	tokens []*softhsm.Token // of SoftHSM, by replica from 0
	rand   io.Reader
}

func (p *Plan) newMaker(ctx context.Context) (m *maker, err error) {
	m = &maker{rand: p.Rand}
	switch p.Keystore {
	case SWTPM:
		m.ca, err = swtpm.NewCA(filepath.Join(string(p.Dir), "tpm-ca"))
	case SoftHSM:
		m.tokens, err = p.makeTokens(ctx)
	}
	return m, err
}

// makeTokens makes all tokens before any is used, one after the other: SoftHSM's tool takes
// whatever slot is free at the moment.
func (p *Plan) makeTokens(ctx context.Context) (tokens []*softhsm.Token, err error) {
	store, err := p.Dir.tokens()
	if err != nil {
		return nil, err
	}
	for i := range p.Size.N() {
		token, err := store.NewToken(ctx, p.Rand, tokenLabel(bft.ReplicaID(i+1)))
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, token)
	}
	return tokens, nil
}

func (d Dir) tokens() (*softhsm.Store, error) { return softhsm.New(filepath.Join(string(d), "tokens")) }

func tokenLabel(id bft.ReplicaID) string { return fmt.Sprintf("replica-%d", id) }

// Token is the token of a replica in a cluster whose keys are kept by SoftHSM.
func (d Dir) Token(id bft.ReplicaID) (*softhsm.Token, error) {
	store, err := d.tokens()
	if err != nil {
		return nil, err
	}
	return store.Token(tokenLabel(id)), nil
}

// make makes the device of one replica, and notes how to open it. Stop ends what has to run meanwhile.
func (m *maker) make(ctx context.Context, dir ReplicaDir, r *Replica) (stop func() error, err error) {
	stop = func() error { return nil }
	switch {
	case m.ca != nil:
		r.Keystore = tpmURI
		tpm, err := manufacture(ctx, m.ca, dir)
		if err != nil {
			return nil, err
		}
		return tpm.Close, nil
	case m.tokens != nil:
		r.Keystore = m.tokens[r.ID-1].URI()
		return stop, nil
	}
	r.Keystore, r.PassphraseFile = fileURI, passphraseFile
	return stop, newPassphrase(m.rand, filepath.Join(string(dir), passphraseFile))
}

// manufacture makes and starts a TPM. What was begun is finished, which takes a second: swtpm's
// tools do not clean up when they are interrupted.
func manufacture(ctx context.Context, ca *swtpm.CA, dir ReplicaDir) (*swtpm.TPM, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err := ca.Manufacture(context.WithoutCancel(ctx), dir.TPM()); err != nil {
		return nil, err
	}
	return swtpm.Start(ctx, dir.TPM())
}

// roots returns what the devices' endorsement certificates verify against; nil for devices that
// have none.
func (m *maker) roots() (*x509.CertPool, error) {
	if m.ca == nil {
		return nil, nil
	}
	return m.ca.Roots()
}
