package hsm

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever an operator gives as the URI of a token: what is accepted names a token and a library.
func FuzzURI(f *testing.F) {
	f.Add("pkcs11:token=reseal;object=o?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=env:PIN")
	f.Add("pkcs11:serial=1?module-path=%2fa")
	f.Add("pkcs11:token=a;token=b?module-path=%zz")
	f.Add("pkcs11:token=a?module-path=b&pin-value=1")
	f.Fuzz(func(t *testing.T, uri string) {
		l, err := parseURI(uri)
		if err != nil {
			require.Nil(t, l)
			return
		}
		require.NotEmpty(t, l.module)
		require.NotEmpty(t, l.label+l.serial)
		require.NotEmpty(t, l.name)
		require.LessOrEqual(t, len(l.name), maxName)
	})
}
