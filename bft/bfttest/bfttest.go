package bfttest

import (
	"context"
	"testing"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/sim"
)

// Options choose the clusters. The zero value is 20 seeds of clusters of six (f = 1, c = 1), all
// adversaries and all faults.
type Options struct {
	// Seeds is the number of clusters, and First the first seed.
	Seeds int
	First uint64
	F, C  int
	// Adversary and Faults are as in [sim.Options].
	Adversary string
	Faults    []string
}

// Run replicates the application in many simulated clusters and fails the test when replicas come
// to different results or states, when a snapshot does not restore the state, or when the cluster
// itself breaks a promise. operation gives the data of each client's operations, numbered from 1;
// there are four clients, 0 to 3, and each sends its next operation when the last one was executed.
func Run(t testing.TB, o Options, application func() bft.Application, operation func(client, number int) []byte) {
	t.Helper()
	if o.Seeds == 0 {
		o.Seeds = 20
	}
	report, err := sim.Campaign(context.Background(), o.First, o.Seeds, sim.Options{
		F: o.F, C: o.C, Adversary: o.Adversary, Faults: o.Faults, Application: application, Operation: operation,
	}, nil)
	if err != nil {
		t.Fatalf("bfttest: %v", err)
	}
	for _, f := range report.Failures {
		t.Errorf("bfttest: seed %d: %s (again: Options{First: %d, Seeds: 1})", f.Seed, f.Reason, f.Seed)
	}
}
