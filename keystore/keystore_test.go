package keystore_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestSecretDoesNotPrint(t *testing.T) {
	s := keystore.NewSecret([]byte("hunter2"))
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("log", "secret", s)
	slog.New(slog.NewTextHandler(&log, nil)).Info("log", "secret", s)
	asJSON, err := json.Marshal(map[string]any{"s": s, "p": &s})
	require.NoError(t, err)
	printed := fmt.Sprint(s, &s) + fmt.Sprintf("%v %+v %#v %s %q %x %d", s, s, s, s, s, s, s) +
		fmt.Sprintf("%v", struct{ S keystore.Secret }{s}) + log.String() + string(asJSON)
	require.NotContains(t, printed, "hunter2")
	require.NotContains(t, printed, "68756e74657232")
	require.NotContains(t, printed, "104 117")
	require.Equal(t, "hunter2", string(s.Reveal()))
	require.True(t, s.Equal(keystore.NewSecret([]byte("hunter2"))))
	require.False(t, s.Equal(keystore.NewSecret([]byte("hunter3"))))
	s.Wipe()
	require.Equal(t, make([]byte, 7), s.Reveal())
}

func TestSecretFrom(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pin")
	require.NoError(t, os.WriteFile(name, []byte("1234\r\n"), 0o600))
	s, err := keystore.SecretFrom("file:" + name)
	require.NoError(t, err)
	require.Equal(t, "1234", string(s.Reveal()))
	t.Setenv("RESEAL_TEST_PIN", "5678")
	s, err = keystore.SecretFrom("env:RESEAL_TEST_PIN")
	require.NoError(t, err)
	require.Equal(t, "5678", string(s.Reveal()))
	for _, source := range []string{"1234", "env:RESEAL_NO_SUCH", "file:" + name + "x"} {
		_, err := keystore.SecretFrom(source)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "1234", "an error does not repeat what may be a PIN")
	}
}

func TestSelection(t *testing.T) {
	var s keystore.Selection
	require.NoError(t, s.UnmarshalText([]byte("0,2,4,7,14")))
	require.Equal(t, keystore.DefaultPCRs, s)
	require.Equal(t, "0,2,4,7,14", s.String())
	require.Equal(t, []int{0, 2, 4, 7, 14}, s.Indexes())
	for _, bad := range []string{"", "x", "24", "-1", "1,,2"} {
		require.Error(t, s.UnmarshalText([]byte(bad)), bad)
	}
	require.Error(t, keystore.Selection(0).Validate())
	require.Error(t, keystore.Selection(1<<24).Validate())
}

// genPCRs draws ascending PCR values.
func genPCRs(t *rapid.T) []keystore.PCRValue {
	selection := keystore.Selection(rapid.Uint32Range(1, 1<<keystore.NumPCRs-1).Draw(t, "selection"))
	var values []keystore.PCRValue
	for _, i := range selection.Indexes() {
		values = append(values, keystore.PCRValue{Index: i, Digest: [32]byte{rapid.Byte().Draw(t, "digest")}})
	}
	return values
}

func TestEncodingsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := &keystore.Quote{
			Attest:    rapid.SliceOfN(rapid.Byte(), 0, keystore.MaxAttest).Draw(t, "attest"),
			Signature: rapid.SliceOfN(rapid.Byte(), 64, 64).Draw(t, "signature"),
			PCRs:      genPCRs(t),
		}
		q.Time = keystore.Statement{Attest: q.Attest, Signature: q.Signature}
		q.Counter = q.Time
		data, err := q.MarshalBinary()
		require.NoError(t, err)
		require.LessOrEqual(t, len(data), keystore.MaxQuote)
		got, err := keystore.ParseQuote(data)
		require.NoError(t, err)
		require.Equal(t, q.PCRs, got.PCRs)
		require.True(t, bytes.Equal(q.Attest, got.Attest))

		a := &keystore.Approval{Signature: q.Signature, State: keystore.BootState{
			Device: [32]byte{rapid.Byte().Draw(t, "device")}, PCRs: q.PCRs, Version: rapid.Uint64().Draw(t, "version"), Slot: rapid.Byte().Draw(t, "slot")}}
		data, err = a.MarshalBinary()
		require.NoError(t, err)
		require.LessOrEqual(t, len(data), keystore.MaxApproval)
		b, err := keystore.ParseApproval(data)
		require.NoError(t, err)
		require.Equal(t, a, b)
	})
}

func TestApprove(t *testing.T) {
	operator, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	state := keystore.BootState{PCRs: []keystore.PCRValue{{Index: 7}}, Version: 1}
	a, err := keystore.Approve(rand.Reader, operator, state)
	require.NoError(t, err)
	require.NoError(t, a.Verify(&operator.PublicKey))
	require.ErrorIs(t, a.Verify(&other.PublicKey), keystore.ErrInvalid)
	require.ErrorIs(t, a.Verify(nil), keystore.ErrInvalid)
	_, err = keystore.Approve(rand.Reader, p384, state)
	require.ErrorContains(t, err, "P-256")
	_, err = keystore.Approve(rand.Reader, operator, keystore.BootState{})
	require.Error(t, err, "no PCRs")
	_, err = keystore.Approve(rand.Reader, operator, keystore.BootState{PCRs: []keystore.PCRValue{{Index: 7}, {Index: 7}}})
	require.Error(t, err, "the same PCR twice")
}

// corpus reads the seeds of a fuzz target, which must be there.
func corpus(f *testing.F, pattern string) {
	f.Helper()
	names, err := filepath.Glob(filepath.Join("testdata", pattern))
	require.NoError(f, err)
	require.NotEmpty(f, names, "the seeds of a fuzz target are in testdata")
	for _, name := range names {
		data, err := os.ReadFile(name)
		require.NoError(f, err)
		f.Add(data)
	}
}

// FuzzQuote: nothing that a peer sends as a quote panics, and what parses is the
// only encoding of what it says.
func FuzzQuote(f *testing.F) {
	corpus(f, "quote-*")
	ak, err := os.ReadFile("testdata/attestation-key")
	require.NoError(f, err)
	nonce := []byte(strings.Repeat("n", 32))
	f.Fuzz(func(t *testing.T, data []byte) {
		q, err := keystore.ParseQuote(data)
		if err != nil {
			return
		}
		again, err := q.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, data, again)
		_, first := keystore.VerifyQuote(ak, nonce, q)
		_, second := keystore.VerifyQuote(ak, nonce, q)
		require.Equal(t, fmt.Sprint(first), fmt.Sprint(second))
		_, _ = keystore.VerifyQuote(data, nonce, q)
		_, _ = keystore.VerifyQuote(q.Attest, nonce, q)
	})
}

// FuzzPublic: nothing that a peer sends as a public area or an attestation
// panics.
func FuzzPublic(f *testing.F) {
	corpus(f, "attestation-key")
	corpus(f, "quote-*")
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = keystore.PublicKey(data)
		q := &keystore.Quote{Attest: data, Signature: data, PCRs: []keystore.PCRValue{{Index: 99}}}
		_, _ = keystore.VerifyQuote(data, make([]byte, 32), q)
	})
}

// keystoreEpoch is when the enrollment in testdata was made.
var keystoreEpoch = time.Date(2026, time.November, 27, 12, 0, 0, 0, time.UTC)

// FuzzEnrollment: the same for enrollments and credentials.
func FuzzEnrollment(f *testing.F) {
	corpus(f, "enrollment-*")
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := keystore.ParseCredential(data); err == nil {
			again, err := c.MarshalBinary()
			require.NoError(t, err)
			require.Equal(t, data, again)
		}
		e, err := keystore.ParseEnrollment(data)
		if err != nil {
			return
		}
		again, err := e.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, data, again)
		_, _ = keystore.VerifyIdentity(e)
		_, _ = keystore.VerifyEnrollment(e, nil, keystoreEpoch)
		_, _ = keystore.MakeCredential(rand.Reader, e, []byte("secret"))
	})
}

// FuzzApproval: the same for approvals.
func FuzzApproval(f *testing.F) {
	corpus(f, "approval-*")
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := keystore.ParseApproval(data)
		if err != nil {
			return
		}
		again, err := a.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, data, again)
		_ = a.Verify(nil)
	})
}

// FuzzEventLog: firmware may write what it likes into its log.
func FuzzEventLog(f *testing.F) {
	corpus(f, "eventlog-*")
	f.Fuzz(func(t *testing.T, data []byte) {
		log, err := keystore.ParseEventLog(data)
		if err != nil {
			return
		}
		for _, e := range log.Events {
			require.True(t, e.PCR >= 0 && e.PCR < keystore.NumPCRs)
		}
		require.Len(t, log.Predict(keystore.DefaultPCRs), 5)
	})
}

// TestEventLog checks the small log in testdata, which was written by hand: two
// measurements into PCR 7, started from locality 3, a remark, and padding.
func TestEventLog(t *testing.T) {
	data, err := os.ReadFile("testdata/eventlog-small")
	require.NoError(t, err)
	log, err := keystore.ParseEventLog(data)
	require.NoError(t, err)
	require.Len(t, log.Events, 2)
	values := log.Predict(keystore.Selection(1<<0 | 1<<7))
	require.Equal(t, [32]byte{31: 3}, values[0].Digest)
	require.Equal(t, keystore.PredictPCR([32]byte{1}, [32]byte{2}), values[1].Digest)
	for size := range len(data) - 16 {
		if log, err := keystore.ParseEventLog(data[:size]); err == nil {
			require.Less(t, len(log.Events), 2, "cut at %d", size)
		}
	}
}
