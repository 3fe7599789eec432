package tpm

import (
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

const nonceSize = 16 // bytes, of sessions

// Which parameters of a command a session encrypts. Only a first parameter that
// is a sized buffer can be.
type direction int

const (
	plain direction = iota
	in
	out
	both
)

// root is a loaded key; the storage root key salts sessions and wraps objects.
type root struct {
	handle  tpm2.TPMHandle
	name    tpm2.TPM2BName
	public  tpm2.TPMTPublic
	passing bool // it is flushed with the connection
}

// options returns the options of a salted session.
func (r *root) options(d direction, auth authorization) []tpm2.AuthOption {
	opts := []tpm2.AuthOption{tpm2.Salted(r.handle, r.public)}
	if auth != "" {
		opts = append(opts, tpm2.Auth([]byte(auth)))
	}
	switch d {
	case in:
		opts = append(opts, tpm2.AESEncryption(128, tpm2.EncryptIn))
	case out:
		opts = append(opts, tpm2.AESEncryption(128, tpm2.EncryptOut))
	case both:
		opts = append(opts, tpm2.AESEncryption(128, tpm2.EncryptInOut))
	}
	return opts
}

// once returns a session for one command. It is flushed with the command.
func (r *root) once(d direction, auth authorization) tpm2.Session {
	return tpm2.HMAC(tpm2.TPMAlgSHA256, nonceSize, r.options(d, auth)...)
}

// authorize pairs a handle with a session for one command.
func (r *root) authorize(h tpm2.TPMHandle, name tpm2.TPM2BName, d direction, auth authorization) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: h, Name: name, Auth: r.once(d, auth)}
}

// emptyAuth uses an object whose authorization is empty in a command that carries
// no secret, without a session.
func emptyAuth(h tpm2.TPMHandle, name tpm2.TPM2BName) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: h, Name: name, Auth: tpm2.PasswordAuth(nil)}
}

// hierarchy authorizes the use of a hierarchy in a command that carries no secret.
// An authorization, where there is one, is proven by a session.
func (c *conn) hierarchy(h tpm2.TPMHandle) tpm2.AuthHandle {
	auth := c.device.authOf(h)
	if auth == "" {
		return emptyAuth(h, tpm2.HandleName(h))
	}
	return tpm2.AuthHandle{Handle: h, Name: tpm2.HandleName(h), Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, nonceSize, tpm2.Auth([]byte(auth)))}
}

// authOf returns the authorization of a hierarchy as far as it is known.
func (d *device) authOf(h tpm2.TPMHandle) authorization {
	switch h {
	case tpm2.TPMRHOwner:
		return d.owner
	case tpm2.TPMRHEndorsement:
		return d.endorsement
	}
	return ""
}

// hierarchy authorizes the use of a hierarchy in a command that carries a secret.
func (r *root) hierarchy(c *conn, h tpm2.TPMHandle, d direction) tpm2.AuthHandle {
	return r.authorize(h, tpm2.HandleName(h), d, c.device.authOf(h))
}

// policySession starts a salted policy session; end flushes it whatever
// happened to the commands in between. A TPM sets it back to its beginning
// whenever it was used.
func (r *root) policySession(c *conn, d direction) (s tpm2.Session, end func(), err error) {
	s, closer, err := tpm2.PolicySession(c, tpm2.TPMAlgSHA256, nonceSize, r.options(d, "")...)
	if err != nil {
		return nil, nil, fmt.Errorf("start a policy session: %w", err)
	}
	return s, func() { _ = closer() }, nil
}

// readPublic returns the public area and name of a loaded object.
func readPublic(c *conn, h tpm2.TPMHandle) (*tpm2.TPMTPublic, tpm2.TPM2BName, error) {
	rsp, err := tpm2.ReadPublic{ObjectHandle: h}.Execute(c)
	if err != nil {
		return nil, tpm2.TPM2BName{}, fmt.Errorf("read public area of %#x: %w", uint32(h), err)
	}
	public, err := rsp.OutPublic.Contents()
	if err != nil {
		return nil, tpm2.TPM2BName{}, fmt.Errorf("read public area of %#x: %w", uint32(h), err)
	}
	return public, rsp.Name, nil
}

// named computes the name of an object from its public area, so that a session
// is bound to what is expected and not to what the TPM says.
func named(h tpm2.TPMHandle, public []byte) (*root, error) {
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return nil, fmt.Errorf("public area: %w", err)
	}
	name, err := tpm2.ObjectName(p)
	if err != nil {
		return nil, fmt.Errorf("public area: %w", err)
	}
	return &root{handle: h, name: *name, public: *p}, nil
}
