package tpm

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/keystore"
)

// Whatever an operator gives as the URI of a TPM, or as the backup of its keystore.
func FuzzConfig(f *testing.F) {
	f.Add("tpm:/dev/tpmrm0?slot=7")
	f.Add("tpm:?slot=300")
	f.Add("tpm:x?%zz")
	backup, err := json.Marshal(config{Kind: kindName, Version: configVersion, Slot: 3})
	require.NoError(f, err)
	f.Add(string(backup))
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := parseBackup([]byte(text)); err == nil {
			require.Len(t, c.rootHandles(), 2)
		}
		if strings.Contains(text, "source") {
			return // it would be read
		}
		_, _, _, err := parseURI(text, keystore.Options{})
		require.True(t, err != nil || strings.HasPrefix(text, Scheme+":"))
	})
}
