package hsm_test

import (
	"strings"
	"testing"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/hsm/softhsm"
	"github.com/stretchr/testify/require"
)

// intruder is somebody who has the PIN for a while, and uses the library as he likes. He shares the
// login of the keystore that is open in this process.
type intruder struct {
	t       *testing.T
	ctx     *pkcs11.Ctx
	session pkcs11.SessionHandle
}

func newIntruder(t *testing.T, tok *softhsm.Token) *intruder {
	t.Helper()
	return intrude(t, tok.Module, tok.Label)
}

func intrude(t *testing.T, module, label string) *intruder {
	t.Helper()
	ctx := pkcs11.New(module) // the library that the keystore initialised
	require.NotNil(t, ctx)
	slots, err := ctx.GetSlotList(true)
	require.NoError(t, err)
	for _, slot := range slots {
		info, err := ctx.GetTokenInfo(slot)
		require.NoError(t, err)
		if strings.TrimRight(info.Label, " \x00") == label {
			session, err := ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
			require.NoError(t, err)
			t.Cleanup(func() { _ = ctx.CloseSession(session) })
			return &intruder{t, ctx, session}
		}
	}
	require.Fail(t, "there is no token", label)
	return nil
}

func (i *intruder) find(template ...*pkcs11.Attribute) []pkcs11.ObjectHandle {
	i.t.Helper()
	require.NoError(i.t, i.ctx.FindObjectsInit(i.session, template))
	found, _, err := i.ctx.FindObjects(i.session, 10000)
	require.NoError(i.t, err)
	require.NoError(i.t, i.ctx.FindObjectsFinal(i.session))
	return found
}

// labelled lists the objects of a label.
func (i *intruder) labelled(label string) []pkcs11.ObjectHandle {
	i.t.Helper()
	return i.find(attribute(pkcs11.CKA_LABEL, label))
}

func (i *intruder) read(h pkcs11.ObjectHandle, kind uint) []byte {
	i.t.Helper()
	got, err := i.ctx.GetAttributeValue(i.session, h, []*pkcs11.Attribute{attribute(kind, nil)})
	require.NoError(i.t, err)
	return got[0].Value
}

func attribute(kind uint, value any) *pkcs11.Attribute { return pkcs11.NewAttribute(kind, value) }

// with returns the attributes with some of them replaced or added.
func with(attributes []*pkcs11.Attribute, changed ...*pkcs11.Attribute) []*pkcs11.Attribute {
	var out []*pkcs11.Attribute
	for _, a := range attributes {
		replaced := false
		for _, c := range changed {
			replaced = replaced || c.Type == a.Type
		}
		if !replaced {
			out = append(out, a)
		}
	}
	return append(out, changed...)
}
