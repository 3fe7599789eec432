package cluster

import (
	"crypto/rand"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/boot"
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

// TestCreateWithTPMs boots a replica of a new cluster as its launcher does, and finds it in the approved state: its secret opens.
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

	measurements, err := boot.Measure(p.Binary, dir.Config())
	require.NoError(t, err)
	require.NoError(t, boot.Extend(ks.(keystore.Attester), measurements))
	_, err = ks.Unseal(0)
	require.NoError(t, err)
	values, err := ks.(keystore.Attester).ReadPCRs()
	require.NoError(t, err)
	approved := approvedState("genesis-1", values)
	require.True(t, genesis.Attestation.Approved[0].SameAs(&approved))
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
