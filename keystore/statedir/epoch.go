package statedir

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"github.com/reseal-bft/reseal/keystore"
)

const (
	epochFile    = "epoch.json"
	epochVersion = 2
	epochPurpose = "reseal keystore epoch v2\n"
)

// epochRecord is the file that says which epoch is current.
type epochRecord struct {
	Version int    `json:"version"`
	Epoch   uint64 `json:"epoch"`
	Proof   []byte `json:"proof"` // that the keystore wrote it
}

// PutEpoch writes down which epoch is current. Prove signs the statement, or
// makes a code of it, by a key that the directory does not show: without that,
// who can write the file could have the device erase what it holds.
func (d *Dir) PutEpoch(epoch uint64, prove func(statement []byte) ([]byte, error)) error {
	proof, err := prove(epochStatement(epoch))
	if err != nil {
		return fmt.Errorf("prove the epoch: %w", err)
	}
	return d.WriteJSON(epochFile, epochRecord{Version: epochVersion, Epoch: epoch, Proof: proof})
}

// Epoch reads what PutEpoch wrote: ErrCorrupt when it is damaged, is not there,
// or does not hold. An older record that is put back holds; the device does
// not bring back what it erased since.
func (d *Dir) Epoch(holds func(statement, proof []byte) bool) (uint64, error) {
	var r epochRecord
	err := d.ReadJSON(epochFile, &r)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, fmt.Errorf("%s: %w: it is not there", d.file(epochFile), keystore.ErrCorrupt)
	case err != nil:
		return 0, err
	case r.Version != epochVersion || !holds(epochStatement(r.Epoch), r.Proof):
		return 0, fmt.Errorf("%s: %w: this keystore did not write it", d.file(epochFile), keystore.ErrCorrupt)
	}
	return r.Epoch, nil
}

func epochStatement(epoch uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(epochPurpose), epoch)
}

// GoesBack is the rule of whose word counts for the current epoch: that of the caller, who has it
// from the group, and not what was found. It reports whether the epoch that he names is earlier
// than the one found: then that was forged, or is another group's, and what belongs to it is to be
// removed. What is earlier than the last epoch that this process advanced to, settled, is over:
// [keystore.ErrErased].
func GoesBack(named, found, settled uint64) (bool, error) {
	if named < found && named < settled {
		return false, fmt.Errorf("%w: the current epoch is %d", keystore.ErrErased, settled)
	}
	return named < found, nil
}
