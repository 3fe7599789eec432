package drill

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/hsm/softhsm"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/internal/stage"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// tokens are the drills of others who use a replica's HSM.
var tokens = []Drill{
	{
		Name: "planted-hsm-key", keystore: cluster.SoftHSM, play: plantedHSMKey,
		Summary: "with the PIN once, keys of known value are written to a token under the names of coming epochs: they are destroyed and reported, and open nothing",
	},
}

// plantedEpochs is for how many coming epochs keys are planted.
const plantedEpochs = 3

func plantedHSMKey(ctx context.Context, r *Rehearsal) error {
	m := r.Machines[0]
	now, err := r.Await(ctx, "the replicas tell their state", func(*stage.Sight) bool { return true })
	if err != nil {
		return err
	}
	token, err := r.Dir.Token(m.ID)
	if err != nil {
		return err
	}
	known := make([]byte, statedir.KeySize)
	if _, err := rand.Read(known); err != nil {
		return err
	}
	ids := guessedIDs(now.Epoch)
	planted, err := plant(token, known, ids, now.Epoch)
	if err != nil {
		return err
	}
	r.Show.Event("somebody has the PIN of replica %d for a moment, and writes %d keys of known value to its token", m.ID, planted)

	thief, err := newThief(known)
	if err != nil {
		return err
	}
	if err := thief.practise(ids[0]); err != nil {
		return err
	}
	for range plantedEpochs - 1 {
		stolen := filepath.Join(r.Scratch, "stolen")
		before, after, err := r.recover(ctx, m.ID)
		if err != nil {
			return err
		}
		if err := r.movedOn(ctx, m, before.Epoch); err != nil {
			return err
		}
		if err := m.BackUp(stolen); err != nil {
			return err
		}
		tried, opened, err := thief.tries(stolen)
		if err != nil {
			return err
		}
		r.Check(tried > 0 && opened == "", fmt.Sprintf("a copy of the disk in epoch %d opens by none of the keys", after.Epoch), "%d sealed secrets tried%s", tried, opened)
	}
	left, err := remaining(token, ids)
	if err != nil {
		return err
	}
	r.Check(left == 0, "the keys that somebody put there are destroyed", "%d of %d are left", left, planted)
	report := lineWith(r.log(m), "did not make")
	r.Check(strings.Contains(report, "change it"), "the replica reports them, and what to do", "%s", report)
	return r.writes(ctx, "with the token cleaned")
}

// log is what a replica has logged in all its lives; empty if that cannot be read.
func (r *Rehearsal) log(m *stage.Machine) string {
	text, err := os.ReadFile(m.Dir.Log())
	if err != nil {
		r.Show.Event("%v", err)
	}
	return string(text)
}

// lineWith is the first line that contains some words; empty if there is none.
func lineWith(text, words string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, words) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// guessedIDs are the ids of coming sealings as far as they can be guessed: see package hsm.
func guessedIDs(now bft.Epoch) (ids [][]byte) {
	for epoch := now + 1; epoch <= now+plantedEpochs; epoch++ {
		for generation := range uint64(3) {
			id := binary.BigEndian.AppendUint64(nil, uint64(epoch))
			id = binary.BigEndian.AppendUint64(id, generation)
			ids = append(ids, append(id, make([]byte, 16)...))
		}
	}
	return ids
}

// asUser calls do with a session in which the token's user is logged in.
func asUser(token *softhsm.Token, do func(x *pkcs11.Ctx, session pkcs11.SessionHandle) error) (err error) {
	pin, err := os.ReadFile(token.PINFile)
	if err != nil {
		return err
	}
	if err := os.Setenv("SOFTHSM2_CONF", token.Conf); err != nil { // the library knows no other way
		return err
	}
	x := pkcs11.New(token.Module)
	if x == nil {
		return fmt.Errorf("%s cannot be loaded", token.Module)
	}
	defer x.Destroy()
	if err := x.Initialize(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Finalize()) }()
	slots, err := x.GetSlotList(true)
	if err != nil {
		return err
	}
	for _, slot := range slots {
		info, err := x.GetTokenInfo(slot)
		if err != nil {
			return err
		}
		if strings.TrimRight(info.Label, " \x00") != token.Label {
			continue
		}
		session, err := x.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			return err
		}
		if err := x.Login(session, pkcs11.CKU_USER, string(bytes.TrimSpace(pin))); err != nil {
			return err
		}
		return do(x, session)
	}
	return fmt.Errorf("there is no token %s", token.Label)
}

// plant writes keys of a known value to a token, which look as much as they can like those that the
// keystore is going to make.
func plant(token *softhsm.Token, known []byte, ids [][]byte, now bft.Epoch) (planted int, err error) {
	names := map[string][][]byte{"reseal-epoch": ids}
	for epoch := now + 1; epoch <= now+plantedEpochs; epoch++ {
		names[fmt.Sprintf("reseal-epoch-%d", epoch)] = ids[:1]
		names[fmt.Sprintf("reseal-epoch-%020d", epoch)] = ids[:1]
	}
	err = asUser(token, func(x *pkcs11.Ctx, session pkcs11.SessionHandle) error {
		for label, ids := range names {
			for _, id := range ids {
				_, err := x.CreateObject(session, []*pkcs11.Attribute{
					pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
					pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_VALUE, known),
					pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
					pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
					pkcs11.NewAttribute(pkcs11.CKA_MODIFIABLE, false), pkcs11.NewAttribute(pkcs11.CKA_COPYABLE, false),
					pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
				})
				if err != nil {
					return fmt.Errorf("plant %s: %w", label, err)
				}
				planted++
			}
		}
		return nil
	})
	return planted, err
}

// remaining counts the objects of a token that bear a guessed id.
func remaining(token *softhsm.Token, ids [][]byte) (left int, err error) {
	err = asUser(token, func(x *pkcs11.Ctx, session pkcs11.SessionHandle) error {
		for _, id := range ids {
			if err := x.FindObjectsInit(session, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, id)}); err != nil {
				return err
			}
			found, _, err := x.FindObjects(session, 100)
			if err := errors.Join(err, x.FindObjectsFinal(session)); err != nil {
				return err
			}
			left += len(found)
		}
		return nil
	})
	return left, err
}

// thief has a copy of a disk, and a key that he hopes is the one under which it is sealed.
type thief struct{ key cipher.AEAD }

func newThief(known []byte) (*thief, error) {
	block, err := aes.NewCipher(known)
	if err != nil {
		return nil, err
	}
	key, err := cipher.NewGCM(block)
	return &thief{key}, err
}

// Sizes in an envelope of package hsm: the id of the key, and the nonce before what it encrypts.
const (
	idSize    = 32
	nonceSize = 12
)

func associated(id []byte) []byte { return append([]byte("reseal sealing key v2\n"), id...) }

// open opens an envelope without token and PIN.
func (t *thief) open(sealed *statedir.Sealed) ([]byte, error) {
	if len(sealed.Wrapped) < idSize+nonceSize {
		return nil, errors.New("it is sealed in another way")
	}
	id, nonce, wrapped := sealed.Wrapped[:idSize], sealed.Wrapped[idSize:idSize+nonceSize], sealed.Wrapped[idSize+nonceSize:]
	key, err := t.key.Open(nil, nonce, wrapped, associated(id))
	if err != nil {
		return nil, err
	}
	return sealed.Open(key)
}

// practise opens an envelope that is sealed under his key: that the others do not open is due to
// their keys.
func (t *thief) practise(id []byte) error {
	sealed, err := statedir.Seal(rand.Reader, statedir.Sealed{Kind: statedir.KindPKCS11, Epoch: 1}, []byte("a share"), func(key []byte) ([]byte, error) {
		nonce := make([]byte, nonceSize)
		return t.key.Seal(append(bytes.Clone(id), nonce...), nonce, key, associated(id)), nil
	})
	if err != nil {
		return err
	}
	secret, err := t.open(sealed)
	if err == nil && string(secret) != "a share" {
		err = errors.New("it opens to something else")
	}
	return err
}

// tries tries the key on all sealed secrets of a copied disk.
func (t *thief) tries(dir string) (tried int, opened string, err error) {
	disk, err := statedir.New(dir)
	if err != nil {
		return 0, "", err
	}
	epochs, err := disk.Epochs()
	if err != nil {
		return 0, "", err
	}
	for _, epoch := range epochs {
		sealed, err := disk.Sealed(statedir.KindPKCS11, epoch)
		if err != nil {
			return tried, "", err
		}
		tried++
		if secret, err := t.open(sealed); err == nil {
			clear(secret)
			opened = fmt.Sprintf(": that of epoch %d opened", epoch)
		}
	}
	return tried, opened, nil
}
