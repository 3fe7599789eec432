package cluster

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/files"
)

// Seen is the path of the height of the newest state that was proven to a client of this directory,
// beside the group key.
func (d Dir) Seen() string { return filepath.Join(string(d), "seen.height") }

const seenFormat = "cluster %s height %d\n"

// readSeen returns the height kept for a cluster, 0 if there is none.
func readSeen(dir Dir, cluster bft.ClusterID) (bft.Height, error) {
	text, err := files.Read(dir.Seen(), maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var name string
	var height bft.Height
	if _, err := fmt.Sscanf(string(text), seenFormat, &name, &height); err != nil {
		return 0, fmt.Errorf("%s holds no height (%w): remove it if you know why; it guards against a cluster that was put back to an earlier time", dir.Seen(), err)
	}
	if name != hex.EncodeToString(cluster[:]) {
		return 0, nil // another cluster was made in this directory
	}
	return height, nil
}

// writeSeen replaces the height.
func writeSeen(dir Dir, cluster bft.ClusterID, height bft.Height) error {
	temp, err := os.CreateTemp(string(dir), "seen-*.tmp")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(temp, seenFormat, hex.EncodeToString(cluster[:]), height)
	if err = errors.Join(err, temp.Chmod(0o644), temp.Sync(), temp.Close()); err == nil {
		err = os.Rename(temp.Name(), dir.Seen())
	}
	if err != nil {
		_ = os.Remove(temp.Name())
	}
	return err
}
