package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore"
)

// counter is a monotonic counter in the TPM's non-volatile memory. It never
// shows a value twice, not even after it was undefined and defined anew.
type counter struct {
	index tpm2.TPMHandle
	name  tpm2.TPM2BName
	auth  authorization
	root  func() *root // salts the sessions
}

func newCounter(index uint32, auth authorization, r func() *root) *counter {
	return &counter{
		index: tpm2.TPMHandle(index),
		name:  tpm2.TPM2BName{Buffer: keystore.CounterName(index)},
		auth:  auth,
		root:  r,
	}
}

// define makes the counter, in place of an old one, and increments it once:
// before that it has no value, and another name.
func (k *counter) define(c *conn) error {
	if err := k.undefine(c); err != nil {
		return err
	}
	_, err := tpm2.NVDefineSpace{
		AuthHandle: k.root().hierarchy(c, tpm2.TPMRHOwner, in),
		Auth:       tpm2.TPM2BAuth{Buffer: []byte(k.auth)},
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: k.index,
			NameAlg: tpm2.TPMAlgSHA256,
			Attributes: tpm2.TPMANV{
				NT: tpm2.TPMNTCounter, AuthWrite: true, AuthRead: true, NoDA: true,
			},
			DataSize: 8,
		}),
	}.Execute(c)
	if err != nil {
		return fmt.Errorf("define counter %#x: %w", uint32(k.index), ownedBy(err))
	}
	unwritten, err := k.currentName(c)
	if err != nil {
		return fmt.Errorf("read counter %#x: %w", uint32(k.index), err)
	}
	return k.incrementNamed(c, unwritten)
}

// undefine removes the counter, if it is there.
func (k *counter) undefine(c *conn) error {
	name, err := k.currentName(c)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read counter %#x: %w", uint32(k.index), err)
	}
	_, err = tpm2.NVUndefineSpace{
		AuthHandle: c.hierarchy(tpm2.TPMRHOwner),
		NVIndex:    tpm2.NamedHandle{Handle: k.index, Name: name},
	}.Execute(c)
	if err != nil {
		return fmt.Errorf("undefine counter %#x: %w", uint32(k.index), ownedBy(err))
	}
	return nil
}

// currentName reads the name that the TPM gives the counter at present.
func (k *counter) currentName(c *conn) (tpm2.TPM2BName, error) {
	rsp, err := tpm2.NVReadPublic{NVIndex: k.index}.Execute(c)
	if err != nil {
		return tpm2.TPM2BName{}, err
	}
	return rsp.NVName, nil
}

// handle authorizes the use of the counter by its own authorization.
func (k *counter) handle(d direction) tpm2.AuthHandle {
	return k.root().authorize(k.index, k.name, d, k.auth)
}

// named is the counter where a command needs no authorization for it.
func (k *counter) named() tpm2.NamedHandle {
	return tpm2.NamedHandle{Handle: k.index, Name: k.name}
}

// read returns the counter's value.
func (k *counter) read(c *conn) (uint64, error) {
	rsp, err := tpm2.NVRead{AuthHandle: k.handle(out), NVIndex: k.named(), Size: 8}.Execute(c)
	if err != nil {
		return 0, fmt.Errorf("read counter %#x: %w", uint32(k.index), err)
	}
	if len(rsp.Data.Buffer) != 8 {
		return 0, fmt.Errorf("read counter %#x: it has %d bytes, not 8", uint32(k.index), len(rsp.Data.Buffer))
	}
	return binary.BigEndian.Uint64(rsp.Data.Buffer), nil
}

// lost reports the errors by which a TPM says that the counter is not there, or not
// as this keystore made it: somebody undefined it, or put something in its place.
func lost(err error) bool {
	return errors.Is(err, tpm2.TPMRCHandle) || errors.Is(err, tpm2.TPMRCNVUninitialized) ||
		errors.Is(err, tpm2.TPMRCAuthFail) || errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCNVAuthorization)
}

// ensure makes the counter again when it is lost, and reports whether it did. A TPM
// never lets a counter begin below what any counter in it has shown, so what was bound
// to the lost one is over.
func (k *counter) ensure(c *conn) (again bool, err error) {
	if _, err = k.read(c); !lost(err) {
		return false, err
	}
	return true, k.define(c)
}

// increment adds one.
func (k *counter) increment(c *conn) error { return k.incrementNamed(c, k.name) }

func (k *counter) incrementNamed(c *conn, name tpm2.TPM2BName) error {
	_, err := tpm2.NVIncrement{
		AuthHandle: k.root().authorize(k.index, name, plain, k.auth),
		NVIndex:    tpm2.NamedHandle{Handle: k.index, Name: name},
	}.Execute(c)
	if err != nil {
		return fmt.Errorf("increment counter %#x: %w", uint32(k.index), err)
	}
	return nil
}

// policy adds PolicyNV to a policy session: the counter compared with a value.
func (k *counter) policy(c *conn, session tpm2.Session, auth tpm2.Session, op tpm2.TPMEO, value uint64) error {
	_, err := tpm2.PolicyNV{
		AuthHandle:    tpm2.AuthHandle{Handle: k.index, Name: k.name, Auth: auth},
		NVIndex:       k.named(),
		PolicySession: session.Handle(),
		OperandB:      tpm2.TPM2BOperand{Buffer: binary.BigEndian.AppendUint64(nil, value)},
		Operation:     op,
	}.Execute(c)
	return err
}
