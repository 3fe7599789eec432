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

// TestRealBoot replays the boot of a real machine into a TPM: its PCRs become
// the published ones, the prediction from the log is the same, the quote proves
// it, and what an operator approved from the log alone opens the share.
func TestRealBoot(t *testing.T) {
	log, err := keystore.ParseEventLog(testdata.Rhel8EventLog)
	require.NoError(t, err)
	for _, v := range log.Predict(allPCRs) {
		if want, ok := rhel8[v.Index]; ok {
			require.Equal(t, want, hex.EncodeToString(v.Digest[:]), "PCR %d", v.Index)
		}
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

	predicted := log.Predict(keystore.DefaultPCRs)
	st, err := s.Status()
	require.NoError(t, err)
	a, err := keystore.Approve(rand.Reader, operator, keystore.BootState{Device: s.DeviceID(), PCRs: predicted, Version: st.ApprovalVersion})
	require.NoError(t, err)
	require.NoError(t, s.AddApproval(a))
	_, err = s.Unseal(0)
	require.ErrorIs(t, err, keystore.ErrNotApproved, "before the boot")

	for _, e := range log.Events {
		require.NoError(t, s.Extend(e.PCR, e.Digest))
	}
	share, err := s.Unseal(0)
	require.NoError(t, err)
	require.Equal(t, "share", string(share))
	values, err := s.ReadPCRs()
	require.NoError(t, err)
	for _, v := range values {
		require.Equal(t, rhel8[v.Index], hex.EncodeToString(v.Digest[:]), "PCR %d", v.Index)
	}
	require.NoError(t, s.Claim())
	nonce := bytes.Repeat([]byte{1}, 32)
	q, err := s.Quote(nonce)
	require.NoError(t, err)
	claims, err := keystore.VerifyQuote(s.AttestationKey(), nonce, q)
	require.NoError(t, err)
	require.Equal(t, keystore.Capped(predicted), claims.PCRs)
}

const allPCRs = keystore.Selection(1<<keystore.NumPCRs - 1)

// TestSameAsGoEventlog reads every real log that go-eventlog keeps: either both
// parsers refuse it, or both find the same measurements. Some logs are of other
// machines' quirks; what is compared is the digests in their order.
func TestSameAsGoEventlog(t *testing.T) {
	compared := 0
	for name, raw := range map[string][]byte{
		"arch":                    testdata.ArchLinuxWorkstationEventLog,
		"debian 10":               testdata.Debian10EventLog,
		"glinux":                  testdata.GlinuxAlexEventLog,
		"rhel 8":                  testdata.Rhel8EventLog,
		"ubuntu 18.04 sev":        testdata.Ubuntu1804AmdSevEventLog,
		"ubuntu 21.04 no dbx":     testdata.Ubuntu2104NoDbxEventLog,
		"ubuntu 21.04, no secure": testdata.Ubuntu2104NoSecureBootEventLog,
		"ubuntu 24.04 sev-snp":    testdata.Ubuntu2404AmdSevSnpEventLog,
		"container-optimized 85":  testdata.Cos85AmdSevEventLog,
		"container-optimized 93":  testdata.Cos93AmdSevEventLog,
		"container-optimized 101": testdata.Cos101AmdSevEventLog,
	} {
		t.Run(name, func(t *testing.T) {
			theirs, theirErr := tcg.ParseEventLog(raw, tcg.ParseOpts{AllowPadding: true})
			ours, err := keystore.ParseEventLog(raw)
			var want, got [][]byte
			if theirErr == nil {
				for _, e := range theirs.Events(register.HashSHA256) {
					if e.Type != tcg.NoAction && len(e.Digest) > 0 {
						want = append(want, append([]byte{byte(e.Index)}, e.Digest...))
					}
				}
			}
			if err != nil {
				require.Empty(t, want, "we refuse what they read: %v", err)
				t.Log(err)
				return
			}
			for _, e := range ours.Events {
				got = append(got, append([]byte{byte(e.PCR)}, e.Digest[:]...))
			}
			require.NoError(t, theirErr)
			require.Equal(t, want, got)
			compared++
		})
	}
	require.GreaterOrEqual(t, compared, 5)
}
