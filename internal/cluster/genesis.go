package cluster

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// settings are what a genesis says of neither members nor operators.
func (p *Plan) settings() *governance.Genesis {
	return &governance.Genesis{
		F: p.Size.F, C: p.Size.C,
		Attestation:   attest.Attestation{Required: p.Keystore == SWTPM},
		RoundInterval: governance.Duration(p.RoundInterval), AllowWear: p.AllowWear,
		RoundDeadline: governance.Duration(p.RoundDeadline),
		Window:        4,
		Timeouts: governance.Timeouts{
			View: governance.Duration(time.Second), ViewMax: governance.Duration(16 * time.Second),
			Finalize: governance.Duration(50 * time.Millisecond), Idle: governance.Duration(100 * time.Millisecond),
			Resend: governance.Duration(500 * time.Millisecond), Ahead: governance.Duration(5 * time.Second),
		},
	}
}

func (p *Plan) genesis(founders []founder, operator ed25519.PublicKey, approval *ecdsa.PrivateKey) (*governance.Genesis, error) {
	g := p.settings()
	g.Name, g.Created = printableName(filepath.Base(string(p.Dir))), time.Now().UTC().Truncate(time.Second)
	g.Operators, g.OperatorQuorum = []ed25519.PublicKey{operator}, 1
	for _, f := range founders {
		g.Members = append(g.Members, f.member)
	}
	if p.Keystore != SWTPM {
		return g, nil
	}
	var err error
	if g.BootApproval, err = x509.MarshalPKIXPublicKey(&approval.PublicKey); err != nil {
		return nil, err
	}
	g.Attestation.PCRs = keystore.DefaultPCRs.Indexes()
	return g, nil
}

// approvedStates names the different boot states of the founders; on machines of one kind there is one.
func approvedStates(founders [][]keystore.PCRValue) []attest.ApprovedState {
	var states []attest.ApprovedState
	for _, values := range founders {
		state := approvedState(fmt.Sprintf("genesis-%d", len(states)+1), values)
		if !slices.ContainsFunc(states, func(s attest.ApprovedState) bool { return maps.Equal(s.PCRs, state.PCRs) }) {
			states = append(states, state)
		}
	}
	return states
}

// approvedState puts PCR values in the form in which the log approves them.
func approvedState(name string, values []keystore.PCRValue) attest.ApprovedState {
	state := attest.ApprovedState{Name: name, PCRs: map[int]attest.Measurement{}}
	for _, v := range values {
		state.PCRs[v.Index] = attest.Measurement(v.Digest)
	}
	return state
}

// printableName makes a cluster's name of a directory's.
func printableName(base string) string {
	name := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, base)
	if name == "" {
		return "cluster"
	}
	return name[:min(len(name), 64)]
}
