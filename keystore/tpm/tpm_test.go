package tpm_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/keystoretest"
	"github.com/reseal-bft/reseal/keystore/swtpm"
	"github.com/reseal-bft/reseal/keystore/tpm"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// shared is what the tests of this package have in common: an authority, two
// manufactured TPMs whose state is copied for each test, and an operator.
var shared struct {
	dir      string
	ca       *swtpm.CA
	operator *ecdsa.PrivateKey
}

// The manufactured TPMs.
const (
	ours    = "ours"
	theirs  = "theirs"
	stateIn = "tpm2-00.permall"
)

func TestMain(m *testing.M) {
	code, err := prepare(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func prepare(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "tpm")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	shared.dir = dir
	if shared.ca, err = swtpm.NewCA(filepath.Join(dir, "ca")); err != nil {
		return 1, err
	}
	if shared.operator, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return 1, err
	}
	var g errgroup.Group
	for _, name := range []string{ours, theirs} {
		g.Go(func() error { return shared.ca.Manufacture(context.Background(), filepath.Join(dir, name)) })
	}
	if err := g.Wait(); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// numTPMs names the TPMs of the tests.
var numTPMs atomic.Int32

// newTPM starts a copy of a manufactured TPM for a test.
func newTPM(t testing.TB, manufactured string) *swtpm.TPM {
	t.Helper()
	dir := filepath.Join(shared.dir, fmt.Sprint(numTPMs.Add(1)))
	require.NoError(t, os.Mkdir(dir, 0o700))
	state, err := os.ReadFile(filepath.Join(shared.dir, manufactured, stateIn))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, stateIn), state, 0o600))
	dev, err := swtpm.Start(context.Background(), dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, dev.Close()) })
	return dev
}

func options(dir string) keystore.Options {
	return keystore.NewOptions(
		keystore.WithDir(dir),
		keystore.WithOperatorKey(&shared.operator.PublicKey),
		keystore.WithTimeout(10*time.Second))
}

// newStore makes a keystore and approves the present boot state.
func newStore(t testing.TB, uri string) (*tpm.Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keystore")
	s, err := tpm.Init(t.Context(), uri, options(dir))
	require.NoError(t, err)
	takeAway(t, dir)
	approvePresent(t, s)
	return s, dir
}

// takeAway does what operators do with the authorization of the hierarchies: it goes
// where the machine does not reach.
func takeAway(t testing.TB, dir string) {
	t.Helper()
	require.NoError(t, os.Rename(filepath.Join(dir, tpm.HierarchiesFile), operatorsFile(dir)))
}

func operatorsFile(dir string) string { return dir + ".auth" }

// asOwner is a URI with the authorization that the keystore in a directory was made with.
func asOwner(uri, dir string) string {
	separator := "?"
	if strings.Contains(uri, "?") {
		separator = "&"
	}
	return uri + separator + "owner-auth-source=file:" + operatorsFile(dir)
}

// giveUp is the owner who takes the authorizations of a TPM's hierarchies away again.
func giveUp(t testing.TB, dev *swtpm.TPM, dir string) {
	t.Helper()
	auth, err := os.ReadFile(operatorsFile(dir))
	require.NoError(t, err)
	for _, hierarchy := range []string{"o", "e", "l"} {
		out, err := exec.Command("tpm2_changeauth", "-T", "swtpm:path="+dev.Socket(), "-c", hierarchy, "-p", strings.TrimSpace(string(auth))).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}

// approvePresent approves the boot state that the TPM is in.
func approvePresent(t testing.TB, s *tpm.Store) {
	t.Helper()
	values, err := s.ReadPCRs()
	require.NoError(t, err)
	approve(t, s, values)
}

func approve(t testing.TB, s *tpm.Store, values []keystore.PCRValue) {
	t.Helper()
	approveAt(t, s, values, 0)
}

func approveAt(t testing.TB, s *tpm.Store, values []keystore.PCRValue, slot uint8) {
	t.Helper()
	st, err := s.Status()
	require.NoError(t, err)
	a, err := keystore.Approve(rand.Reader, shared.operator, keystore.BootState{
		Device: s.DeviceID(), PCRs: values, Version: st.ApprovalVersion, Slot: slot})
	require.NoError(t, err)
	require.NoError(t, s.AddApproval(a))
}

// claimedStore is newStore after Claim.
func claimedStore(t testing.TB, uri string) (*tpm.Store, string) {
	t.Helper()
	s, dir := newStore(t, uri)
	require.NoError(t, s.Claim())
	return s, dir
}

// ownedTPM makes a keystore in a slot apart, for the authorization of the hierarchies.
func ownedTPM(t testing.TB, dev *swtpm.TPM) (*tpm.Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "owner")
	s, err := tpm.Init(t.Context(), dev.URI()+"?slot=200", options(dir))
	require.NoError(t, err)
	takeAway(t, dir)
	return s, dir
}

func openStore(t testing.TB, uri, dir string) *tpm.Store {
	t.Helper()
	s, err := tpm.Open(t.Context(), uri, options(dir))
	require.NoError(t, err)
	return s
}

func TestConformance(t *testing.T) {
	dev := newTPM(t, ours)
	var slot int
	_, owner := ownedTPM(t, dev)
	keystoretest.Run(t, func(t *testing.T) keystoretest.Device {
		require.NoError(t, dev.Reboot())
		uri := asOwner(fmt.Sprintf("%s?slot=%d", dev.URI(), slot), owner)
		dir := filepath.Join(t.TempDir(), "keystore")
		s, err := tpm.Init(t.Context(), uri, options(dir))
		require.NoError(t, err)
		values, err := s.ReadPCRs()
		require.NoError(t, err)
		approveAt(t, s, values, uint8(slot))
		remove := uri
		t.Cleanup(func() { require.NoError(t, tpm.Remove(context.Background(), remove, options(dir))) })
		slot++
		reboot := func(t *testing.T) { require.NoError(t, dev.Reboot()) }
		uri = fmt.Sprintf("%s?slot=%d", dev.URI(), slot-1) // what it needs from now on
		return keystoretest.Device{Dir: dir, Reboot: reboot, Open: func(t *testing.T, dir string) keystore.Keystore {
			return openStore(t, uri, dir)
		}}
	})
}

// copySealed copies what is sealed from one keystore's directory to another's.
func copySealed(t *testing.T, from, to string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(from, "sealed-*"))
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(to, filepath.Base(name)), data, 0o600))
	}
}
