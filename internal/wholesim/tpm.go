package wholesim

import (
	"crypto/sha256"
	"sync"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/papertpm"
	"github.com/reseal-bft/reseal/recovery/attest"
)

// tpm is what attests a machine.
type tpm struct {
	mu    sync.Mutex
	paper *papertpm.TPM
}

// The boot state of the simulated machines.
const (
	bootPCR  = 7
	firmware = 1 << 16
)

var bootValue = attest.Measurement(sha256.Sum256([]byte("simulated machine")))

func newTPM() (*tpm, error) {
	paper, err := papertpm.New()
	if err != nil {
		return nil, err
	}
	paper.PCRs[bootPCR], paper.Firmware, paper.ResetCount = bootValue, firmware, 1
	return &tpm{paper: paper}, nil
}

func (t *tpm) resets() uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.paper.ResetCount
}

// boot is a power cycle.
func (t *tpm) boot() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.paper.ResetCount++
}

func (t *tpm) public() []byte { return t.paper.Public() }

func (t *tpm) quote(nonce []byte) (*keystore.Quote, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.paper.Quote(nonce)
}
