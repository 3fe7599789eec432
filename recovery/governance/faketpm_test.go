package governance

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/keystore/papertpm"
	"github.com/reseal-bft/reseal/recovery/attest"
)

// fakeTPM is a TPM that tests can make say anything.
type fakeTPM struct {
	*papertpm.TPM
	t *testing.T
	// since is the time since the reset, version the value of the approval counter.
	since   time.Duration
	version uint64
}

func newFakeTPM(t *testing.T) *fakeTPM {
	tpm, err := papertpm.New()
	require.NoError(t, err)
	tpm.PCRs[7], tpm.PCRs[14], tpm.ResetCount, tpm.Firmware = good7, good14, 5, 0x20_0000
	return &fakeTPM{TPM: tpm, t: t}
}

var (
	good7, good14 = attest.Measurement(sha256.Sum256([]byte("boot loader"))), attest.Measurement(sha256.Sum256([]byte("binary")))
	bad14         = attest.Measurement(sha256.Sum256([]byte("tampered binary")))
)

// boot is a power cycle into the given binary.
func (f *fakeTPM) boot(binary attest.Measurement) {
	f.ResetCount++
	f.since = 0
	f.PCRs[14] = binary
}

// quote answers a nonce.
func (f *fakeTPM) quote(nonce []byte) ([]byte, error) {
	f.SinceReset, f.Approvals = uint64(f.since.Milliseconds()), f.version
	q, err := f.Quote(nonce)
	require.NoError(f.t, err)
	return q.MarshalBinary()
}

// raise lets the approval counter reach a version.
func (f *fakeTPM) raise(version uint64) { f.version = max(f.version, version) }
