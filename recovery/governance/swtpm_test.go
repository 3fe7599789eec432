package governance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/swtpm"
	"github.com/reseal-bft/reseal/keystore/tpm"
	"github.com/reseal-bft/reseal/recovery/attest"
)

// TestRecoveryWithARealTPM lets replica 3 live on a TPM of its own, through the TPM's commands:
// enrolled at genesis, then due three times.
func TestRecoveryWithARealTPM(t *testing.T) {
	device, store, approve := realTPM(t)
	clean, tampered := sha256.Sum256([]byte("binary")), sha256.Sum256([]byte("tampered binary"))
	boot := func(measurement [32]byte) {
		require.NoError(t, device.Reboot())
		require.NoError(t, store.Extend(14, measurement))
	}
	// Its own TPM is told to bear the other binary, which the log does not.
	boot(tampered)
	approve()
	boot(clean)
	approve()
	c := clusterWith(t, store)

	// It has not rebooted since its enrolment.
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	c.refused(attest.ReasonNoReboot, c.attestWith(store))
	c.handoff()
	require.False(t, c.state.View().Member(3).HoldsShare)

	// It comes up with another binary.
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	c.accepted(c.presentWith(store))
	boot(tampered)
	require.Contains(t, c.refused(attest.ReasonPCR, c.attestWith(store)), "PCR 14")
	c.handoff()

	// It comes up clean, after its plug was pulled: the TPM's clock is not safe then.
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	c.accepted(c.presentWith(store))
	require.NoError(t, device.PowerCut())
	boot(clean)
	first := c.attestWith(store)
	c.accepted(first)
	c.handoff()
	m := c.state.View().Member(3)
	require.True(t, m.HoldsShare)
	require.True(t, m.Attested)
	status, err := store.Status()
	require.NoError(t, err)
	require.Equal(t, status.ResetCount, m.ResetCount)

	// The old quote is worth nothing in the next round, under whatever signature.
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	fresh, _ := epochKey(t)
	replay, err := attest.NewEvidence(rand.Reader, c.challenge(3), fresh, store.Identity(), func([]byte) ([]byte, error) {
		return first.Evidence.Quote, nil
	})
	require.NoError(t, err)
	require.Contains(t, c.refused(attest.ReasonNonce, &Attest{replay}), "another nonce")
}

// realTPM makes and runs a TPM, with a keystore in it. Approve lets its keys be used in the state
// that it is in.
func realTPM(t *testing.T) (device *swtpm.TPM, store *tpm.Store, approve func()) {
	t.Helper()
	dir := t.TempDir()
	ca, err := swtpm.NewCA(filepath.Join(dir, "ca"))
	require.NoError(t, err)
	require.NoError(t, ca.Manufacture(t.Context(), filepath.Join(dir, "tpm")))
	device, err = swtpm.Start(t.Context(), filepath.Join(dir, "tpm"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, device.Close()) })
	operator, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	store, err = tpm.Init(t.Context(), device.URI(), keystore.NewOptions(
		keystore.WithDir(filepath.Join(dir, "keystore")), keystore.WithOperatorKey(&operator.PublicKey), keystore.WithTimeout(10*time.Second)))
	require.NoError(t, err)
	return device, store, func() {
		values, err := store.ReadPCRs()
		require.NoError(t, err)
		status, err := store.Status()
		require.NoError(t, err)
		approval, err := keystore.Approve(rand.Reader, operator, keystore.BootState{Device: store.DeviceID(), PCRs: values, Version: status.ApprovalVersion})
		require.NoError(t, err)
		require.NoError(t, store.AddApproval(approval))
	}
}

// clusterWith is a cluster in epoch 1 whose replica 3 has the given TPM, in the approved state. The
// registers are those that the TPM quotes.
func clusterWith(t *testing.T, store *tpm.Store) *cluster {
	t.Helper()
	values, err := store.ReadPCRs()
	require.NoError(t, err)
	status, err := store.Status()
	require.NoError(t, err)
	c := newCluster(t, func(g *Genesis) {
		state := attest.ApprovedState{Name: "v1", PCRs: map[int]attest.Measurement{}}
		g.Attestation.PCRs = nil
		for _, v := range values {
			g.Attestation.PCRs = append(g.Attestation.PCRs, v.Index)
			state.PCRs[v.Index] = v.Digest
		}
		g.Attestation.Approved = []attest.ApprovedState{state}
	})
	der, err := x509.MarshalPKIXPublicKey(store.Identity().Public())
	require.NoError(t, err)
	m := &c.genesis.Members[2]
	m.Identity, m.AttestationKey, m.ResetCount = der, store.AttestationKey(), status.ResetCount
	c.identities[3] = store.Identity()
	c.state, c.twin = fresh(t, c.genesis), fresh(t, c.genesis)
	c.block()
	c.handoff()
	return c
}

// presentWith is presence of replica 3 by its TPM.
func (c *cluster) presentWith(store *tpm.Store) *Present {
	c.t.Helper()
	require.NoError(c.t, store.Claim())
	p, err := attest.NewPresence(rand.Reader, c.challenge(3), store.Identity(), quoteOf(store))
	require.NoError(c.t, err)
	return &Present{p}
}

func quoteOf(store *tpm.Store) attest.Quoter {
	return func(nonce []byte) ([]byte, error) {
		q, err := store.Quote(nonce)
		if err != nil {
			return nil, err
		}
		return q.MarshalBinary()
	}
}

// attestWith is evidence of replica 3 by its TPM.
func (c *cluster) attestWith(store *tpm.Store) *Attest {
	c.t.Helper()
	require.NoError(c.t, store.Claim())
	public, private := epochKey(c.t)
	c.nextKeys[3] = private
	e, err := attest.NewEvidence(rand.Reader, c.challenge(3), public, store.Identity(), quoteOf(store))
	require.NoError(c.t, err)
	return &Attest{e}
}
