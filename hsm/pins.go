package hsm

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
	"golang.org/x/crypto/scrypt"
)

const (
	refusedFile    = "refused-pins.json"
	refusedVersion = 1
	maxRefused     = 8
	saltLen        = 16
	hashLen        = 32
	scryptR        = 8
	scryptP        = 1
)

// scryptN is the cost of a guess, if somebody has the file and looks for PINs like the right one:
// 16 MiB. Tests lower it.
var scryptN = 1 << 14

// pinMemory remembers in the directory which PINs a token refused. A service that is started again
// and again with a wrong PIN would lock the token otherwise, a try at each start.
type pinMemory struct {
	dir *statedir.Dir
}

// refusals is the file of it.
type refusals struct {
	Version int      `json:"version"`
	Serial  string   `json:"serial"` // of the token
	Salt    []byte   `json:"salt"`
	Hashes  [][]byte `json:"hashes"`
}

// read returns what was refused by the token. A file that is damaged, or is that of another token,
// says nothing.
func (m pinMemory) read(serial string) (refusals, error) {
	var r refusals
	err := m.dir.ReadJSON(refusedFile, &r)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, keystore.ErrCorrupt) {
		return r, err
	}
	if err != nil || r.Version != refusedVersion || r.Serial != serial || len(r.Salt) != saltLen || len(r.Hashes) > maxRefused {
		return refusals{Version: refusedVersion, Serial: serial}, nil
	}
	return r, nil
}

func (r refusals) hash(pin keystore.Secret) ([]byte, error) {
	return scrypt.Key(pin.Reveal(), r.Salt, scryptN, scryptR, scryptP, hashLen)
}

// check refuses a PIN that the token refused before.
func (m pinMemory) check(serial string, pin keystore.Secret) error {
	r, err := m.read(serial)
	if err != nil || len(r.Hashes) == 0 {
		return err
	}
	hash, err := r.hash(pin)
	if err != nil {
		return err
	}
	for _, h := range r.Hashes {
		if subtle.ConstantTimeCompare(h, hash) == 1 {
			return fmt.Errorf("%w: the token refused it before, and it is not tried again so that the token does not lock: give another one (or, if the token's PIN was set to this one since, delete %s in %s)",
				keystore.ErrWrongPIN, refusedFile, m.dir.Path())
		}
	}
	return nil
}

// add remembers a PIN that the token refused; the oldest one goes when there are too many.
func (m pinMemory) add(serial string, pin keystore.Secret) error {
	r, err := m.read(serial)
	if err != nil {
		return err
	}
	if len(r.Salt) == 0 {
		r.Salt = make([]byte, saltLen)
		if _, err := rand.Read(r.Salt); err != nil {
			return err
		}
	}
	hash, err := r.hash(pin)
	if err != nil {
		return err
	}
	r.Hashes = append(r.Hashes, hash)
	r.Hashes = r.Hashes[max(0, len(r.Hashes)-maxRefused):]
	if err := m.dir.Make(); err != nil {
		return err
	}
	return m.dir.WriteJSON(refusedFile, r)
}

// forget is called when a PIN was right.
func (m pinMemory) forget() error {
	if _, err := m.dir.Read(refusedFile); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return m.dir.Remove(refusedFile)
}
