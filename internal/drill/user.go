package drill

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/reseal-bft/reseal/internal/stage"
	"github.com/reseal-bft/reseal/keystore/tpm"
)

// user is somebody who reaches a TPM, with commands of his own: what refuses him is the TPM.
type user struct {
	transport.TPM
	conn net.Conn
}

// useTPM connects to a machine's TPM. Nobody else has it until the connection is closed.
func (r *Rehearsal) useTPM(ctx context.Context, m *stage.Machine) (*user, error) {
	var conn net.Conn
	err := r.Until(ctx, "the TPM takes a connection", func(context.Context) (bool, error) { // it takes few at a time
		var err error
		conn, err = net.Dial("unix", m.TPM.Socket())
		return err == nil, nil
	})
	if err != nil {
		return nil, err
	}
	return &user{transport.FromReadWriteCloser(conn), conn}, nil
}

// object is a key that is in the TPM.
type object struct {
	what   string
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
}

// made makes a key of his own, which answers to him: what is refused for others' keys is refused for
// the keys' sake.
func (u *user) made() (object, error) {
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHNull, InPublic: tpm2.New2B(tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true},
		Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
	})}.Execute(u)
	if err != nil {
		return object{}, err
	}
	return object{"a key of his own", rsp.ObjectHandle, rsp.Name}, nil
}

// loaded loads the keys of a copied keystore.
func (u *user) loaded(dir string) (objects []object, err error) {
	var keys map[string]json.RawMessage
	data, err := os.ReadFile(filepath.Join(dir, "keystore.json"))
	if err == nil {
		err = json.Unmarshal(data, &keys)
	}
	if err != nil {
		return nil, err
	}
	root, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(tpm.RootHandle)}.Execute(u)
	if err != nil {
		return nil, fmt.Errorf("storage root key: %w", err)
	}
	for _, what := range []string{"identity", "gate"} {
		var key struct{ Public, Private []byte }
		if err := json.Unmarshal(keys[what], &key); err != nil {
			return nil, fmt.Errorf("%s key: %w", what, err)
		}
		rsp, err := tpm2.Load{
			ParentHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(tpm.RootHandle), Name: root.Name, Auth: tpm2.PasswordAuth(nil)},
			InPrivate:    tpm2.TPM2BPrivate{Buffer: key.Private}, InPublic: tpm2.BytesAs2B[tpm2.TPMTPublic](key.Public),
		}.Execute(u)
		if err != nil {
			return nil, fmt.Errorf("load the %s key: %w", what, err)
		}
		objects = append(objects, object{"the " + what + " key", rsp.ObjectHandle, rsp.Name})
	}
	return objects, nil
}

// attestation is the attestation key of the keystore in the TPM's slot 0 (see package tpm).
func (u *user) attestation() (object, error) {
	const handle = tpm2.TPMHandle(0x81005201)
	rsp, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(u)
	if err != nil {
		return object{}, fmt.Errorf("attestation key: %w", err)
	}
	return object{"the attestation key", handle, rsp.Name}, nil
}

// authorizations are all that somebody has who knows no secret of the replica.
func authorizations() map[string]tpm2.Session {
	nothing := func(transport.TPM, tpm2.TPMISHPolicy, tpm2.TPM2BNonce) error { return nil }
	return map[string]tpm2.Session{
		"an empty password": tpm2.PasswordAuth(nil), "a session": tpm2.HMAC(tpm2.TPMAlgSHA256, 16), "an empty policy": tpm2.Policy(tpm2.TPMAlgSHA256, 16, nothing),
	}
}

// sign and quote ask a key to do what it is for.
func (u *user) sign(o object, auth tpm2.Session) error {
	digest := sha256.Sum256([]byte("a credential"))
	_, err := tpm2.Sign{
		KeyHandle: tpm2.AuthHandle{Handle: o.handle, Name: o.name, Auth: auth}, Digest: tpm2.TPM2BDigest{Buffer: digest[:]}, InScheme: scheme(),
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(u)
	return err
}

func (u *user) quote(o object, auth tpm2.Session) error {
	_, err := tpm2.Quote{
		SignHandle: tpm2.AuthHandle{Handle: o.handle, Name: o.name, Auth: auth}, QualifyingData: tpm2.TPM2BData{Buffer: make([]byte, 32)}, InScheme: scheme(),
		PCRSelect: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(14)}}},
	}.Execute(u)
	return err
}

func scheme() tpm2.TPMTSigScheme {
	return tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256})}
}

// answersToNobody has the TPM asked for signatures and quotes by the keys of a copied keystore, with
// every authorization that takes no secret. The same commands work with a key of one's own.
func (r *Rehearsal) answersToNobody(ctx context.Context, m *stage.Machine, copied string) (err error) {
	u, err := r.useTPM(ctx, m)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.conn.Close()) }()
	own, err := u.made()
	if err != nil {
		return err
	}
	for name, command := range map[string]func(object, tpm2.Session) error{"sign": u.sign, "quote": u.quote} {
		if err := command(own, tpm2.PasswordAuth(nil)); err != nil {
			return fmt.Errorf("%s with a key of one's own: %w", name, err)
		}
	}
	if _, err := (tpm2.FlushContext{FlushHandle: own.handle}).Execute(u); err != nil {
		return err
	}
	keys, err := u.loaded(copied)
	if err != nil {
		return err
	}
	attestation, err := u.attestation()
	if err != nil {
		return err
	}
	for _, key := range keys {
		r.unauthorized(key.what+" signs nothing for others", key, u.sign)
		if _, err := (tpm2.FlushContext{FlushHandle: key.handle}).Execute(u); err != nil {
			return err
		}
	}
	r.unauthorized("the attestation key quotes nothing for others", attestation, u.quote)
	return nil
}

// unauthorized notes that the TPM refused a command, for want of authorization.
func (r *Rehearsal) unauthorized(promise string, key object, command func(object, tpm2.Session) error) {
	held, detail := true, ""
	for how, auth := range authorizations() {
		err := command(key, auth)
		held = held && (errors.Is(err, tpm2.TPMRCAuthUnavailable) || errors.Is(err, tpm2.TPMRCPolicyFail))
		detail += fmt.Sprintf("%s: %v; ", how, err)
	}
	r.Check(held, promise, "%s", detail)
}
