package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/swtpm"
	"github.com/reseal-bft/reseal/recovery/governance"
)

func plan(t *testing.T, kind Kind) Plan {
	binary := filepath.Join(t.TempDir(), "reseal")
	require.NoError(t, os.WriteFile(binary, []byte("the program"), 0o700))
	return Plan{
		Dir: Dir(filepath.Join(t.TempDir(), "c")), Size: bft.Size{F: 1}, Keystore: kind, Binary: binary, Config: DefaultConfig, Rand: rand.Reader,
		RoundDeadline: time.Minute,
	}
}

func TestCreateWithoutTPMs(t *testing.T) {
	for _, kind := range []Kind{File, SoftHSM} {
		t.Run(string(kind), func(t *testing.T) { testCreateWithoutTPMs(t, plan(t, kind)) })
	}
}

func testCreateWithoutTPMs(t *testing.T, p Plan) {
	made, err := Create(t.Context(), p)
	require.NoError(t, err)
	genesis, err := governance.Load(p.Dir.Genesis())
	require.NoError(t, err)
	require.Equal(t, made.ClusterID(), genesis.ClusterID())
	require.Len(t, genesis.Members, 4)
	require.False(t, genesis.Attestation.Required)

	for _, member := range genesis.Members {
		dir := p.Dir.Replica(member.ID)
		settings, err := ReadReplica(dir)
		require.NoError(t, err)
		require.Equal(t, member.Address, settings.Listen)
		ks, err := OpenKeystore(t.Context(), dir, settings)
		require.NoError(t, err)
		_, err = ks.Unseal(0)
		require.NoError(t, err)
		require.NoError(t, ks.Close())
	}
}

// TestCreateWithTPMs boots a replica of a new cluster as its launcher does, and finds it in the
// approved state: its secret opens.
func TestCreateWithTPMs(t *testing.T) {
	p := plan(t, SWTPM)
	genesis, err := Create(t.Context(), p)
	require.NoError(t, err)
	require.True(t, genesis.Attestation.Required)
	require.Len(t, genesis.Attestation.Approved, 1, "machines of one kind have one boot state")
	member := genesis.Members[2]
	require.NotEmpty(t, member.AttestationKey)
	require.NotEmpty(t, member.EKCertificates)

	dir := p.Dir.Replica(member.ID)
	settings, err := ReadReplica(dir)
	require.NoError(t, err)
	tpm, err := swtpm.Start(t.Context(), dir.TPM())
	require.NoError(t, err)
	defer func() { require.NoError(t, tpm.Close()) }()
	ks, err := OpenKeystore(t.Context(), dir, settings)
	require.NoError(t, err)
	defer func() { require.NoError(t, ks.Close()) }()
	_, err = ks.Unseal(0)
	require.ErrorIs(t, err, keystore.ErrNotApproved, "nothing was measured yet")

	measured, err := MeasureBoot(t.Context(), dir, settings, p.Binary)
	require.NoError(t, err)
	require.True(t, measured)
	_, err = ks.Unseal(0)
	require.NoError(t, err)
	values, err := ks.(keystore.Attester).ReadPCRs()
	require.NoError(t, err)
	approved := approvedState("genesis-1", values)
	require.True(t, genesis.Attestation.Approved[0].SameAs(&approved))
	require.NoError(t, ks.Claim())
}

// TestOtherGenesis: a replica's TPM does not open for a genesis that somebody changed, be it the
// key that approves boot states alone.
func TestOtherGenesis(t *testing.T) {
	p := plan(t, SWTPM)
	genesis, err := Create(t.Context(), p)
	require.NoError(t, err)
	evil, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	genesis.BootApproval, err = x509.MarshalPKIXPublicKey(&evil.PublicKey)
	require.NoError(t, err)
	state := &genesis.Attestation.Approved[0]
	version := func(id bft.ReplicaID) uint64 { return genesis.Members[id-1].ApprovalVersion }
	state.Approvals, err = genesis.Approve(rand.Reader, evil, state, version)
	require.NoError(t, err)
	require.NoError(t, os.Remove(p.Dir.Genesis()))
	require.NoError(t, genesis.Save(p.Dir.Genesis()))

	dir := p.Dir.Replica(1)
	settings, err := ReadReplica(dir)
	require.NoError(t, err)
	tpm, err := swtpm.Start(t.Context(), dir.TPM())
	require.NoError(t, err)
	defer func() { require.NoError(t, tpm.Close()) }()
	_, err = MeasureBoot(t.Context(), dir, settings, p.Binary)
	require.NoError(t, err)
	ks, err := OpenKeystore(t.Context(), dir, settings)
	require.NoError(t, err)
	defer func() { require.NoError(t, ks.Close()) }()
	values, err := ks.(keystore.Attester).ReadPCRs()
	require.NoError(t, err)
	present := approvedState("present", values)
	require.False(t, state.SameAs(&present), "the genesis is measured")
	approvals, err := genesis.Approve(rand.Reader, evil, &present, version)
	require.NoError(t, err)
	require.NoError(t, ks.(keystore.Attester).AddApproval(genesis.Approval(&present, &approvals[0])), "who changed it approves what he likes")
	_, err = ks.Unseal(0)
	require.Error(t, err)
	require.Error(t, ks.Claim())
}

func TestCreateLeavesNothingBehindWhenItFails(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer busy.Close()
	p := plan(t, File)
	p.BasePort = busy.Addr().(*net.TCPAddr).Port
	_, err = Create(t.Context(), p)
	require.ErrorContains(t, err, "--base-port")
	require.NoDirExists(t, string(p.Dir))

	require.NoError(t, os.Mkdir(string(p.Dir), 0o700))
	_, err = Create(t.Context(), p)
	require.ErrorContains(t, err, "address already in use")
	entries, err := os.ReadDir(string(p.Dir))
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestCreateRefuses(t *testing.T) {
	p := plan(t, File)
	p.Size = bft.Size{F: 0, C: 1}
	_, err := Create(t.Context(), p)
	require.ErrorContains(t, err, "f >= 1")

	p = plan(t, File)
	require.NoError(t, os.MkdirAll(p.Dir.Replica(1).Store(), 0o700))
	_, err = Create(t.Context(), p)
	require.ErrorContains(t, err, "not empty")
	require.DirExists(t, p.Dir.Replica(1).Store())

	p = plan(t, SWTPM)
	p.Dir = Dir(filepath.Join(string(p.Dir), strings.Repeat("long", 30)))
	_, err = Create(t.Context(), p)
	require.ErrorContains(t, err, "shorter path")
	_, err = ParseKind("paper")
	require.ErrorContains(t, err, "swtpm, softhsm or file")
}
