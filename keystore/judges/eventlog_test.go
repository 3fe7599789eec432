package judges

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"path/filepath"
	"testing"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	"github.com/google/go-eventlog/testdata"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/swtpm"
	"github.com/reseal-bft/reseal/keystore/tpm"
)

// rhel8 are the PCRs (SHA-256) of the machine whose event log go-eventlog keeps
// in its test data, as published there.
var rhel8 = map[int]string{
	0:  "24af52a4f429b71a3184a6d64cddad17e54ea030e2aa6576bf3a5a3d8bd3328f",
	1:  "454220afaa80c83c3839f6cccd8b3c88bf4f562316a9dda1121c578c9e005a53",
	2:  "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969",
	4:  "758a3d35f1b0ff5b135dacd07db0c8132c0ac665d944090d4bf96e66447a245c",
	5:  "53d0ee36163219201e686167bbb71ec505b3ba2917b9d9183ed84aad26cfeb89",
	7:  "5fd54361d580eb7592adb8deb236ff35444ceeac7148f24b3de63c041f12b3da",
	8:  "25c3874041ebd4e9a21b6ed71b624a7bfa99907a8dcea7f129a4c64cbaf5829a",
	9:  "d43b2f61eb18b4791812ff5f20ab20e4ef621ba683370bedf5dbdf518b3a8078",
	14: "d8f57ebcc1a23cc46832696e1a657f720e1be8f5b405bb7204682114e363b455",
}

// measurements lists, by PCR, the digests of a log that a boot extends.
func measurements(t *testing.T, raw []byte) map[int][][32]byte {
	t.Helper()
	log, err := tcg.ParseEventLog(raw, tcg.ParseOpts{})
	require.NoError(t, err)
	out := make(map[int][][32]byte)
	for _, e := range log.Events(register.HashSHA256) {
		if e.Type == tcg.NoAction {
			continue // a remark in the log that is not measured
		}
		require.Len(t, e.Digest, 32, "the log has no SHA-256 digests")
		out[e.Index] = append(out[e.Index], [32]byte(e.Digest))
	}
	return out
}

// TestRealBoot replays the boot of a real machine into a TPM: its PCRs become
// the published ones, the prediction from the log is the same, the quote proves
// it, and what an operator approved from the log alone opens the share.
func TestRealBoot(t *testing.T) {
	boot := measurements(t, testdata.Rhel8EventLog)
	for pcr, want := range rhel8 {
		got := keystore.PredictPCR(boot[pcr]...)
		require.Equal(t, want, hex.EncodeToString(got[:]), "PCR %d", pcr)
	}

	dir := t.TempDir()
	ca, err := swtpm.NewCA(filepath.Join(dir, "ca"))
	require.NoError(t, err)
	require.NoError(t, ca.Manufacture(t.Context(), filepath.Join(dir, "tpm")))
	dev, err := swtpm.Start(t.Context(), filepath.Join(dir, "tpm"))
	require.NoError(t, err)
	defer func() { require.NoError(t, dev.Close()) }()
	operator, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	s, err := tpm.Init(t.Context(), dev.URI(), keystore.NewOptions(
		keystore.WithDir(filepath.Join(dir, "keystore")), keystore.WithOperatorKey(&operator.PublicKey)))
	require.NoError(t, err)
	require.NoError(t, s.Seal(0, []byte("share")))

	var predicted []keystore.PCRValue
	for _, pcr := range keystore.DefaultPCRs.Indexes() {
		predicted = append(predicted, keystore.PCRValue{Index: pcr, Digest: keystore.PredictPCR(boot[pcr]...)})
	}
	st, err := s.Status()
	require.NoError(t, err)
	a, err := keystore.Approve(rand.Reader, operator, keystore.BootState{PCRs: predicted, Version: st.ApprovalVersion})
	require.NoError(t, err)
	require.NoError(t, s.AddApproval(a))
	_, err = s.Unseal(0)
	require.ErrorIs(t, err, keystore.ErrNotApproved, "before the boot")

	for pcr, digests := range boot {
		for _, d := range digests {
			require.NoError(t, s.Extend(pcr, d))
		}
	}
	nonce := bytes.Repeat([]byte{1}, 32)
	q, err := s.Quote(nonce)
	require.NoError(t, err)
	claims, err := keystore.VerifyQuote(s.AttestationKey(), nonce, q)
	require.NoError(t, err)
	require.Equal(t, predicted, claims.PCRs)
	for _, v := range claims.PCRs {
		require.Equal(t, rhel8[v.Index], hex.EncodeToString(v.Digest[:]), "PCR %d", v.Index)
	}
	share, err := s.Unseal(0)
	require.NoError(t, err)
	require.Equal(t, "share", string(share))
}
