package hsm_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/reseal-bft/reseal/hsm"
	"github.com/reseal-bft/reseal/hsm/softhsm"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/keystoretest"
	"github.com/stretchr/testify/require"
)

// tokens are the SoftHSM tokens of this package's tests.
var tokens *softhsm.Store

func TestMain(m *testing.M) {
	if os.Getenv(helperURI) != "" {
		os.Exit(m.Run()) // as another process, with the tokens of the first
	}
	code, err := prepare(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func prepare(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "softhsm")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if tokens, err = softhsm.New(dir); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

func options(dir string) keystore.Options {
	return keystore.NewOptions(keystore.WithDir(dir))
}

// newToken makes a token for a test.
func newToken(t testing.TB, label string) *softhsm.Token {
	t.Helper()
	tok, err := tokens.NewToken(t.Context(), rand.Reader, label)
	require.NoError(t, err)
	return tok
}

// runConformance runs the suite, on a keystore with a name of its own for each
// test, in the token at a URI with the given query.
func runConformance(t *testing.T, token, query string) {
	var n int
	keystoretest.Run(t, func(t *testing.T) keystoretest.Device {
		n++
		uri := fmt.Sprintf("pkcs11:%s;object=test%d?%s", token, n, query)
		dir := filepath.Join(t.TempDir(), "keystore")
		s, err := hsm.Init(t.Context(), uri, options(dir))
		require.NoError(t, err)
		require.NoError(t, s.Close())
		t.Cleanup(func() { require.NoError(t, hsm.Remove(t.Context(), uri, options(dir))) })
		return keystoretest.Device{Dir: dir, Open: func(t *testing.T, dir string) keystore.Keystore {
			k, err := hsm.Open(t.Context(), uri, options(dir))
			require.NoError(t, err)
			return k
		}}
	})
}

func TestConformanceSoftHSM(t *testing.T) {
	tok := newToken(t, "conformance")
	runConformance(t, "token="+tok.Label, tok.Query())
}
