package cluster

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// Plan says what cluster to make.
type Plan struct {
	Dir      Dir
	Size     bft.Size
	Keystore Kind
	// Binary is the program that the replicas will run: its hash is part of the approved boot state.
	Binary string
	// BasePort is the port of replica 1, followed by those of the others; 0: free ports.
	BasePort int
	// RoundDeadline is how long replicas may take to reboot and attest, when they are due.
	RoundDeadline time.Duration
	// RoundInterval is the time from the begin of an epoch to its recovery round; 0: rounds begin by
	// order or accusation. AllowWear accepts one that wears TPMs out, see [governance.Genesis].
	RoundInterval time.Duration
	AllowWear     bool
	Config        Config
	// Rand is the source of the operators' keys and of passphrases. It must be safe for concurrent use.
	Rand io.Reader
}

// Create makes a cluster on this machine: keystores with identities, epoch keys, the approved boot
// state, and the genesis. The directory must be empty or not exist yet. What fails leaves nothing
// behind.
func Create(ctx context.Context, plan Plan) (genesis *governance.Genesis, err error) {
	if err := plan.Size.Validate(); err != nil {
		return nil, err
	}
	// Before minutes are spent on TPMs.
	if err := plan.settings().ValidateTimes(); err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	abs, err := filepath.Abs(string(plan.Dir))
	if err != nil {
		return nil, err
	}
	plan.Dir = Dir(abs)
	if _, err := resolve(plan.Dir.Replica(bft.ReplicaID(plan.Size.N())), tpmURI); err != nil && plan.Keystore == SWTPM {
		return nil, err
	}
	existed, err := claim(abs)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, unclaim(abs, existed))
		}
	}()
	return plan.create(ctx)
}

// claim makes the directory, or checks that it is empty.
func claim(dir string) (existed bool, err error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, os.MkdirAll(dir, 0o700)
	case err != nil:
		return true, err
	case len(entries) > 0:
		return true, fmt.Errorf("%s is not empty: choose a new directory for the cluster", dir)
	}
	return true, nil
}

// unclaim removes what was made, and the directory itself unless it existed before.
func unclaim(dir string, existed bool) error {
	if !existed {
		return os.RemoveAll(dir)
	}
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, entry.Name())))
	}
	return err
}

func (p *Plan) create(ctx context.Context) (genesis *governance.Genesis, err error) {
	operator, err := newOperatorKey(p.Rand, p.Dir.OperatorKey())
	if err != nil {
		return nil, err
	}
	approval, err := newBootApprovalKey(p.Rand, p.Dir.BootApprovalKey())
	if err != nil {
		return nil, err
	}
	addresses, err := p.addresses()
	if err != nil {
		return nil, err
	}
	founders, err := p.enrol(ctx, addresses, approval)
	defer func() {
		for i := range founders {
			err = errors.Join(err, founders[i].close())
		}
	}()
	if err != nil {
		return nil, err
	}
	if genesis, err = p.genesis(founders, operator.Public().(ed25519.PublicKey), approval); err != nil {
		return nil, err
	}
	if genesis.Attestation.Approved, err = p.approve(genesis, founders, approval); err != nil {
		return nil, err
	}
	return genesis, genesis.Save(p.Dir.Genesis())
}

// addresses finds an address of this machine for each replica, and checks that it is free.
func (p *Plan) addresses() ([]string, error) {
	addresses := make([]string, p.Size.N())
	for i := range addresses {
		port := 0
		if p.BasePort != 0 {
			port = p.BasePort + i
		}
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return nil, fmt.Errorf("address of replica %d: %w: choose another --base-port, or 0 for free ones", i+1, err)
		}
		defer listener.Close() // all are held until all are found
		addresses[i] = listener.Addr().String()
	}
	return addresses, nil
}
