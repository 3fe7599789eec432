package governance

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/attest"
)

func TestGenesisFile(t *testing.T) {
	g := newCluster(t).genesis
	path := filepath.Join(t.TempDir(), "genesis.json")
	require.NoError(t, g.Save(path))
	require.ErrorIs(t, g.Save(path), os.ErrExist)

	loaded, err := Load(path)
	require.NoError(t, err)
	require.Equal(t, g, loaded)
	require.Equal(t, g.ClusterID(), loaded.ClusterID())
	m, err := loaded.Membership()
	require.NoError(t, err)
	require.Len(t, m.Members, 6)
	require.Equal(t, time.Second, loaded.Timeouts.Bounds().View)

	_, err = Load(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "reseal init")
}

func TestClusterIDIsOfTheContentNotTheLayout(t *testing.T) {
	g := newCluster(t).genesis
	b, err := json.Marshal(g)
	require.NoError(t, err)
	var indented bytes.Buffer
	require.NoError(t, json.Indent(&indented, b, "", "\t"))
	again, err := ParseGenesis(indented.Bytes())
	require.NoError(t, err)
	require.Equal(t, g.ClusterID(), again.ClusterID())

	again.Created = again.Created.In(time.FixedZone("", 3600))
	require.Equal(t, g.ClusterID(), again.ClusterID())
	again.Members[3].Address = "127.0.0.1:1"
	require.NotEqual(t, g.ClusterID(), again.ClusterID())
}

// TestWear: a short interval is for who accepts that the TPMs wear out, or has none.
func TestWear(t *testing.T) {
	require.Equal(t, "26m17s", keystore.LeastEpoch.Round(time.Second).String())
	for _, bend := range []func(*Genesis){
		func(g *Genesis) { g.RoundInterval = Duration(keystore.LeastEpoch) },
		func(g *Genesis) { g.RoundInterval, g.AllowWear = Duration(time.Minute), true },
		func(g *Genesis) { g.RoundInterval, g.Attestation.Required = Duration(time.Minute), false },
	} {
		g := newCluster(t).genesis
		bend(g)
		require.NoError(t, g.Validate())
	}
}

// TestFoundingDigest: it is of everything but the approved states.
func TestFoundingDigest(t *testing.T) {
	g := newCluster(t).genesis
	digest := g.FoundingDigest()
	g.Attestation.Approved[0].PCRs[7] = good14
	require.Equal(t, digest, g.FoundingDigest())
	require.Equal(t, good14, g.Attestation.Approved[0].PCRs[7], "the genesis is not touched")
	for name, bend := range map[string]func(*Genesis){
		"operator":      func(g *Genesis) { g.Operators[0], g.Operators[1] = g.Operators[1], g.Operators[0] },
		"boot approval": func(g *Genesis) { g.BootApproval = []byte{1} },
		"member":        func(g *Genesis) { g.Members[1].AttestationKey = []byte{1} },
		"PCRs":          func(g *Genesis) { g.Attestation.PCRs = []int{14} },
		"required":      func(g *Genesis) { g.Attestation.Required = false },
	} {
		g := newCluster(t).genesis
		before := g.FoundingDigest()
		bend(g)
		require.NotEqual(t, before, g.FoundingDigest(), name)
	}
}

func TestGenesisRefusesWhatItDoesNotUnderstand(t *testing.T) {
	b, err := json.Marshal(newCluster(t).genesis)
	require.NoError(t, err)
	for _, test := range []struct{ old, new, says string }{
		{`"round_interval"`, `"round_intervall"`, `unknown field "round_intervall"`},
		{`"1s"`, `"soon"`, `write it like "500ms"`},
		{good7.String(), "abcd", "write 64 hexadecimal digits"},
		{good7.String(), strings.Repeat("x", 64), "PCR value"},
		{`}}`, `}} {}`, "something follows"},
		{`{`, ``, "restore the file"},
	} {
		text := string(b)
		i := strings.LastIndex(text, test.old)
		if test.old == "{" {
			i = 0
		}
		require.GreaterOrEqual(t, i, 0, test.old)
		_, err := ParseGenesis([]byte(text[:i] + test.new + text[i+len(test.old):]))
		require.ErrorContains(t, err, test.says)
	}
	_, err = ParseGenesis(make([]byte, maxGenesis+1))
	require.ErrorContains(t, err, "larger than")
}

func TestGenesisErrorsNameTheField(t *testing.T) {
	state := func(g *Genesis) *attest.ApprovedState { return &g.Attestation.Approved[0] }
	for says, bend := range map[string]func(*Genesis){
		"name: choose":                              func(g *Genesis) { g.Name = "" },
		"name: choose 1 to 64 printable":            func(g *Genesis) { g.Name = "a\x00" },
		"created: give":                             func(g *Genesis) { g.Created = time.Time{} },
		"f, c: f=0":                                 func(g *Genesis) { g.F = 0 },
		"members: 6 are listed":                     func(g *Genesis) { g.C = 2 },
		"members[1].id: 1":                          func(g *Genesis) { g.Members[1].ID = 1 },
		"members[1].address: write it as host:port": func(g *Genesis) { g.Members[1].Address = "x" },
		"members[2].address: the same as that of members[0]": func(g *Genesis) { g.Members[2].Address = g.Members[0].Address },
		"members[0].identity: ":                              func(g *Genesis) { g.Members[0].Identity = []byte("x") },
		"members[1].identity: the same":                      func(g *Genesis) { g.Members[1].Identity = g.Members[0].Identity },
		"members[0].epoch_key: 5 bytes":                      func(g *Genesis) { g.Members[0].EpochKey = make([]byte, 5) },
		"members[1].epoch_key: the same":                     func(g *Genesis) { g.Members[1].EpochKey = g.Members[0].EpochKey },
		"members[0].attestation_key: missing":                func(g *Genesis) { g.Members[0].AttestationKey = nil },
		"members[0].attestation_key: 2000 bytes":             func(g *Genesis) { g.Members[0].AttestationKey = make([]byte, 2000) },
		"members[5].attestation_key: the same":               func(g *Genesis) { g.Members[5].AttestationKey = g.Members[0].AttestationKey },
		"members[0].storage_root: missing":                   func(g *Genesis) { g.Members[0].StorageRoot = nil },
		"members[0].storage_root: 2000 bytes":                func(g *Genesis) { g.Members[0].StorageRoot = make([]byte, 2000) },
		"members[5].storage_root: the same":                  func(g *Genesis) { g.Members[5].StorageRoot = g.Members[0].StorageRoot },
		"members[0].ek_certificates: at most":                func(g *Genesis) { g.Members[0].EKCertificates = make([][]byte, 9) },
		"operators: name 1 to 64":                            func(g *Genesis) { g.Operators = nil },
		"operators[1]: 3 bytes":                              func(g *Genesis) { g.Operators[1] = make([]byte, 3) },
		"operators[1]: listed twice":                         func(g *Genesis) { g.Operators[1] = g.Operators[0] },
		"operator_quorum: 4: choose 1 to 3":                  func(g *Genesis) { g.OperatorQuorum = 4 },
		"boot_approval: ":                                    func(g *Genesis) { g.BootApproval = []byte("x") },
		"attestation: pcrs: list registers 0 to 23":          func(g *Genesis) { g.Attestation.PCRs = []int{14, 7} },
		"attestation: pcrs: 17 can be set back":              func(g *Genesis) { g.Attestation.PCRs = []int{7, 17} },
		"attestation: pcrs: name the registers":              func(g *Genesis) { g.Attestation.PCRs = nil },
		"attestation: approved: name at least one":           func(g *Genesis) { g.Attestation.Approved = nil },
		"attestation: approved: at most 64":                  func(g *Genesis) { g.Attestation.Approved = make([]attest.ApprovedState, 65) },
		"attestation: approved[0]: name: choose":             func(g *Genesis) { state(g).Name = "" },
		"has no value for PCR 7":                             func(g *Genesis) { delete(state(g).PCRs, 7) },
		"give exactly PCRs [7 14]":                           func(g *Genesis) { state(g).PCRs[8] = good7 },
		"approved[1]: the name \"v1\" is taken": func(g *Genesis) {
			g.Attestation.Approved = append(g.Attestation.Approved, *state(g))
		},
		"round_interval: 26m0s: each epoch writes a counter": func(g *Genesis) { g.RoundInterval = Duration(26 * time.Minute) },
		"round_interval: -1ns":                               func(g *Genesis) { g.RoundInterval = -1 },
		"round_deadline: 0s":                                 func(g *Genesis) { g.RoundDeadline = 0 },
		"timeouts.view: 0s":                                  func(g *Genesis) { g.Timeouts.View = 0 },
		"timeouts.view_max: 1ms":                             func(g *Genesis) { g.Timeouts.ViewMax = Duration(time.Millisecond) },
		"timeouts.finalize: ":                                func(g *Genesis) { g.Timeouts.Finalize = 0 },
		"timeouts.idle: 1s":                                  func(g *Genesis) { g.Timeouts.Idle = g.Timeouts.View },
		"timeouts.resend: ":                                  func(g *Genesis) { g.Timeouts.Resend = 0 },
		"timeouts.ahead: ":                                   func(g *Genesis) { g.Timeouts.Ahead = 1 << 62 },
		"window: 0":                                          func(g *Genesis) { g.Window = 0 },
	} {
		g := newCluster(t).genesis
		bend(g)
		err := g.Validate()
		require.ErrorContains(t, err, says)
		require.NotContains(t, err.Error(), "\n")
		_, err = New(g)
		require.ErrorContains(t, err, says)
	}
}
