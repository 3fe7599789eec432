package devices

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// thief has copies of directories, of all times.
type thief struct {
	dir    string // of the fleet
	copies map[bft.ReplicaID][]map[string]string
}

// keystoreDir is where a replica's keystore has its files.
func (t *thief) keystoreDir(id bft.ReplicaID) string {
	return filepath.Join(t.dir, "keystore"+string('0'+rune(id)))
}

// Copy implements [recoverytest.Fleet].
func (t *thief) Copy(id bft.ReplicaID) error {
	names, err := os.ReadDir(t.keystoreDir(id))
	if err != nil {
		return err
	}
	files := make(map[string]string)
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(t.keystoreDir(id), name.Name()))
		if os.IsNotExist(err) {
			continue // it has just been removed
		}
		if err != nil {
			return err
		}
		files[name.Name()] = string(data)
	}
	if last := t.last(id); last == nil || !maps.Equal(last, files) {
		t.copies[id] = append(t.copies[id], files)
	}
	return nil
}

func (t *thief) last(id bft.ReplicaID) map[string]string {
	if all := t.copies[id]; len(all) > 0 {
		return all[len(all)-1]
	}
	return nil
}

// put writes a copy to a new directory.
func (t *thief) put(files map[string]string) (string, error) {
	dir, err := os.MkdirTemp(t.dir, "stolen")
	for name, data := range files {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600)
		}
	}
	return dir, err
}

// sealedFile is a sealed secret, as some copy has it.
type sealedFile struct {
	name, data string
	*statedir.Sealed
}

// envelopes are all that a replica ever sealed, the newest last, each once.
func (t *thief) envelopes(id bft.ReplicaID) (all []sealedFile) {
	seen := map[string]bool{}
	for _, files := range t.copies[id] {
		for _, name := range slices.Sorted(maps.Keys(files)) {
			data := files[name]
			if sealed, err := statedir.ParseSealed([]byte(data)); err == nil && strings.HasPrefix(name, "sealed-") && !seen[data] {
				seen[data] = true
				all = append(all, sealedFile{name, data, sealed})
			}
		}
	}
	return all
}
