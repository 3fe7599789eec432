package hsm

import (
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/keystore"
)

// softwareTokens are names by which tokens that are programs go.
var softwareTokens = []string{"softhsm", "mozilla", "nss", "softtok", "software"}

// Status implements keystore.Keystore.
func (s *Store) Status() (keystore.Status, error) {
	if err := s.do(s.present); err != nil {
		return keystore.Status{}, err
	}
	info := s.token.information()
	s.mu.RLock()
	defer s.mu.RUnlock()
	held, err := s.dir.Held(s.epoch, func(epoch uint64) error {
		sealed, err := s.sealed(epoch)
		if err != nil {
			return err
		}
		secret, err := s.unseal(sealed)
		clear(secret)
		return err
	})
	if err != nil {
		return keystore.Status{}, err
	}
	device := strings.Join([]string{trim(info.ManufacturerID), trim(info.Model), trim(info.Label), trim(info.SerialNumber)}, " ")
	st := keystore.Status{
		Kind: kindName, Device: device, Identity: keystore.Fingerprint(s.identity), Epoch: s.epoch, Held: held,
		Capabilities: []string{
			"The identity key and the keys of sealings were made in the token, which says that they never left it; it is asked whenever they are used.",
			fmt.Sprintf("Each sealing has a key of its own (%s), which is destroyed when another one replaces it or its epoch is over.", s.profile.mode),
		},
	}
	for _, name := range softwareTokens {
		st.Software = st.Software || strings.Contains(strings.ToLower(device), name)
	}
	st.Cautions = s.cautions(st.Software, info)
	return st, nil
}

// cautions are what the token cannot do, and what was found on it.
func (s *Store) cautions(software bool, info pkcs11.TokenInfo) []string {
	all := []string{"A token attests nothing about the machine: whoever has the PIN and runs code here can unseal."}
	if software {
		all = append(all, "This token is a program: its keys are files, which can be read, copied and put back; a destroyed key is an unlinked file.")
	}
	if s.profile.wrapOut {
		all = append(all, "The token lets who has the PIN copy keys that it calls never extractable (it wraps them): who has had it once may have the identity and what is sealed at that time.")
	}
	if !s.profile.local {
		all = append(all, "The token does not say which keys it made itself (CKA_LOCAL); that a key was always sensitive and never extractable is all that it says.")
	}
	if info.Flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0 {
		all = append(all, "A wrong PIN was tried on the token before the keystore was opened.")
	}
	return append(all, s.notes.list()...)
}
