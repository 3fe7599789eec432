package devices

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/hsm"
	"github.com/reseal-bft/reseal/hsm/softhsm"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/recoverytest"
)

// tokens are SoftHSM tokens in sets, one token for each replica. A process sees the tokens of one
// directory that were there when the library was loaded; who logs out of a token ends others'
// sessions. So all are made at the begin, and a fleet has a set for itself while it plays, under a
// name of its own.
type tokens struct {
	dir    string
	free   chan []*softhsm.Token
	fleets atomic.Uint64
}

// maxReplicas is the largest cluster of a plan.
const maxReplicas = 7

func newTokens(ctx context.Context, dir string, atOnce int) (*tokens, error) {
	store, err := softhsm.New(dir)
	if err != nil {
		return nil, err
	}
	t := &tokens{dir: dir, free: make(chan []*softhsm.Token, atOnce)}
	for i := range atOnce {
		var set []*softhsm.Token
		for j := range maxReplicas {
			token, err := store.NewToken(ctx, rand.Reader, fmt.Sprintf("set-%d-replica-%d", i+1, j+1))
			if err != nil {
				return nil, err
			}
			set = append(set, token)
		}
		t.free <- set
	}
	return t, nil
}

// Fleet implements [Maker].
func (t *tokens) Fleet() (recoverytest.Fleet, error) {
	dir, err := os.MkdirTemp(t.dir, "fleet")
	if err != nil {
		return nil, err
	}
	return &tokenFleet{
		thief: thief{dir, map[bft.ReplicaID][]map[string]string{}}, of: t, tokens: <-t.free, name: fmt.Sprint("fleet", t.fleets.Add(1)),
	}, nil
}

// tokenFleet is keystores in tokens. Who is in a replica has its PIN, and the token; outside he has
// what he copied of the disk, and what he planted in the token.
type tokenFleet struct {
	plain
	thief
	of     *tokens
	tokens []*softhsm.Token
	name   string
	made   []bft.ReplicaID
}

func (f *tokenFleet) uri(id bft.ReplicaID) string {
	token := f.tokens[id-1]
	return fmt.Sprintf("pkcs11:token=%s;object=%s?%s", token.Label, f.name, token.Query())
}

func (f *tokenFleet) Init(ctx context.Context, id bft.ReplicaID) (keystore.Keystore, error) {
	f.made = append(f.made, id)
	return hsm.Init(ctx, f.uri(id), options(f.keystoreDir(id)))
}

func (f *tokenFleet) Reboot(ctx context.Context, id bft.ReplicaID) (keystore.Keystore, error) {
	return hsm.Open(ctx, f.uri(id), options(f.keystoreDir(id)))
}

func (f *tokenFleet) Offline(ctx context.Context, id bft.ReplicaID, use func(keystore.Keystore) error) error {
	return offline(use)(f.Reboot(ctx, id))
}

func (f *tokenFleet) Close() (err error) {
	for _, id := range f.made {
		err = errors.Join(err, hsm.Remove(context.Background(), f.uri(id), options(f.keystoreDir(id))))
	}
	f.of.free <- f.tokens
	return errors.Join(err, os.RemoveAll(f.dir))
}

// Copy implements [recoverytest.Fleet].
func (f *tokenFleet) Copy(id bft.ReplicaID) error { return f.thief.Copy(id) }

// known is the value of the keys that the intruder plants.
var known = []byte("a key that the intruder knows...")

// Plant writes keys of known value for the epochs to come, which look as much like the keystore's
// own as they can.
func (f *tokenFleet) Plant(id bft.ReplicaID, epoch bft.Epoch) error {
	return f.session(id, func(ctx *pkcs11.Ctx, session pkcs11.SessionHandle) error {
		like, err := f.like(ctx, session)
		if err != nil || like == nil {
			return err
		}
		for e := epoch + 1; e <= epoch+3; e++ {
			name := make([]byte, 32)
			binary.BigEndian.PutUint64(name, uint64(e))
			binary.BigEndian.PutUint64(name[8:], 1)
			template := append(like[:len(like):len(like)], pkcs11.NewAttribute(pkcs11.CKA_ID, name), pkcs11.NewAttribute(pkcs11.CKA_VALUE, known))
			if _, err := ctx.CreateObject(session, template); err != nil {
				return fmt.Errorf("plant a key in the token: %w", err)
			}
		}
		return nil
	})
}

// like reads the attributes of the key that the keystore uses now; nil when it has sealed nothing.
func (f *tokenFleet) like(ctx *pkcs11.Ctx, session pkcs11.SessionHandle) (attributes []*pkcs11.Attribute, err error) {
	if err := ctx.FindObjectsInit(session, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, f.name+"-epoch")}); err != nil {
		return nil, err
	}
	found, _, err := ctx.FindObjects(session, 1)
	if err = errors.Join(err, ctx.FindObjectsFinal(session)); err != nil || len(found) == 0 {
		return nil, err
	}
	for _, kind := range []uint{
		pkcs11.CKA_CLASS, pkcs11.CKA_KEY_TYPE, pkcs11.CKA_LABEL, pkcs11.CKA_TOKEN, pkcs11.CKA_PRIVATE, pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE,
		pkcs11.CKA_MODIFIABLE, pkcs11.CKA_COPYABLE, pkcs11.CKA_WRAP_WITH_TRUSTED, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT,
		pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP, pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY, pkcs11.CKA_DERIVE,
	} {
		got, err := ctx.GetAttributeValue(session, found[0], []*pkcs11.Attribute{pkcs11.NewAttribute(kind, nil)})
		if err == nil && len(got) == 1 && len(got[0].Value) > 0 {
			attributes = append(attributes, got[0])
		}
	}
	return attributes, nil
}

// session uses a token beside the keystore that is open in this process, whose login it shares.
func (f *tokenFleet) session(id bft.ReplicaID, use func(*pkcs11.Ctx, pkcs11.SessionHandle) error) error {
	token := f.tokens[id-1]
	ctx := pkcs11.New(token.Module) // the library that the keystore initialised
	if ctx == nil {
		return errors.New("SoftHSM does not load")
	}
	defer ctx.Destroy()
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		return err
	}
	for _, slot := range slots {
		info, err := ctx.GetTokenInfo(slot)
		if err != nil || strings.TrimRight(info.Label, " \x00") != token.Label {
			continue
		}
		session, err := ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			return err
		}
		return errors.Join(use(ctx, session), ctx.CloseSession(session))
	}
	return fmt.Errorf("there is no token %q", token.Label)
}

// Try opens all envelopes by the planted keys, without the token; and, inside, all copies of the
// disk with it.
func (f *tokenFleet) Try(ctx context.Context, id bft.ReplicaID, inside bool) (stolen []recoverytest.Stolen, err error) {
	for _, e := range f.envelopes(id) {
		if secret := openByKnown(e); secret != nil {
			stolen = append(stolen, recoverytest.Stolen{How: "a copied disk opens under a key that was planted in the token", Secret: secret})
		}
	}
	if !inside {
		return stolen, nil
	}
	for _, files := range f.copies[id] {
		dir, err := f.put(files)
		if err != nil {
			return nil, err
		}
		old, err := hsm.Open(ctx, f.uri(id), options(dir))
		if err != nil {
			continue // what is missing in the copy, it cannot say
		}
		for _, e := range f.envelopes(id) {
			if secret, err := old.Unseal(e.Epoch); err == nil {
				stolen = append(stolen, recoverytest.Stolen{How: fmt.Sprintf("the token opens a copy of the disk, of epoch %d", e.Epoch), Secret: secret})
			}
		}
		if err := errors.Join(old.Close(), os.RemoveAll(dir)); err != nil {
			return nil, err
		}
	}
	return stolen, nil
}

// openByKnown opens an envelope without token and PIN, if its key is the planted one; see package
// hsm for the form.
func openByKnown(e sealedFile) []byte {
	const id, nonce = 32, 12
	if len(e.Wrapped) < id+nonce {
		return nil
	}
	block, err := aes.NewCipher(known)
	if err != nil {
		return nil
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil
	}
	key, err := aead.Open(nil, e.Wrapped[id:id+nonce], e.Wrapped[id+nonce:], append([]byte("reseal sealing key v2\n"), e.Wrapped[:id]...))
	if err != nil {
		return nil
	}
	secret, err := e.Open(key)
	if err != nil {
		return nil
	}
	return secret
}
