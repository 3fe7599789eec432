package cluster

import (
	"context"
	"strings"

	"github.com/reseal-bft/reseal/internal/boot"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/tpm"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// measurements are what a replica's boot measures, in this order: the program, its configuration,
// and whom it obeys.
func measurements(binary, config string, founding [32]byte) ([]boot.Measurement, error) {
	files, err := boot.Measure(binary, config)
	if err != nil {
		return nil, err
	}
	return append(files, boot.Measurement{Path: "the genesis", Digest: founding}), nil
}

// MeasureBoot does what a boot chain does before it starts a replica: it takes the platform
// hierarchy of the replica's software TPM away, as firmware does, and extends the program, its
// configuration and the genesis. It reports false without a TPM: there is nothing to extend them
// into.
func MeasureBoot(ctx context.Context, dir ReplicaDir, r *Replica, binary string) (measured bool, err error) {
	uri, err := resolve(dir, r.Keystore)
	if err != nil {
		return false, err
	}
	if !strings.HasPrefix(uri, tpm.Scheme+":") {
		return false, nil
	}
	genesis, err := governance.Load(r.Genesis)
	if err != nil {
		return false, err
	}
	all, err := measurements(binary, dir.Config(), genesis.FoundingDigest())
	if err != nil {
		return false, err
	}
	o := keystore.NewOptions()
	if dir.HasTPM() {
		if err := tpm.DisablePlatform(ctx, uri, o); err != nil {
			return false, err
		}
	}
	return true, boot.Extend(extender{ctx, uri, o}, all)
}

// extender extends into the TPM at a URI, before there is a keystore.
type extender struct {
	ctx context.Context
	uri string
	o   keystore.Options
}

func (e extender) Extend(pcr int, digest [32]byte) error {
	return tpm.Extend(e.ctx, e.uri, pcr, digest, e.o)
}
