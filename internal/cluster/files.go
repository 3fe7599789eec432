package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/budget"
	"github.com/reseal-bft/reseal/internal/files"
)

// maxFile bounds what is read of a settings file, in bytes.
const maxFile = 1 << 20

// Replica is replica.json: what tells one replica from the others. It need not be trusted by them
// and is not measured.
type Replica struct {
	ID bft.ReplicaID `json:"id"`
	// Listen is the address that the replica serves, host:port.
	Listen string `json:"listen"`
	// Keystore is the URI of the keystore.
	Keystore string `json:"keystore"`
	// PassphraseFile is where the file keystore's passphrase is kept; relative to the replica's
	// directory.
	PassphraseFile string `json:"passphrase_file,omitempty"`
	// Genesis is the path of the genesis, relative to the replica's directory.
	Genesis string `json:"genesis"`
}

// Config is config.json, the measured configuration. It is the same on every replica: the hash of
// its bytes is part of the boot state that operators approve.
type Config struct {
	// LogLevel is debug, info, warn or error.
	LogLevel slog.Level `json:"log_level"`
	// MemoryLimitMiB is the soft memory limit of the replica; 0: none.
	MemoryLimitMiB int64 `json:"memory_limit_mib"`
}

// DefaultConfig is what init writes, but for clusters that take more memory: see [ConfigFor].
var DefaultConfig = Config{LogLevel: slog.LevelInfo, MemoryLimitMiB: budget.Default >> 20}

// ConfigFor is what init writes for a cluster of some size.
func ConfigFor(size bft.Size) Config {
	config := DefaultConfig
	if size.Validate() != nil { // whoever makes the cluster says so
		return config
	}
	const step = 256 // what is a little more than the least leaves some to share
	if least := budget.Least(size) >> 20; least >= config.MemoryLimitMiB {
		config.MemoryLimitMiB = (least/step + 2) * step
	}
	return config
}

// Advice on settings that are not in order.
const (
	replicaAdvice = `write it again, as {"id": 1, "listen": "HOST:PORT", "keystore": "URI", "genesis": "../genesis.json"}, or put it back from a backup; it is not measured`
	configAdvice  = "copy it from another replica, where it has the same bytes: they are measured"
)

// ReadReplica reads a replica's settings.
func ReadReplica(dir ReplicaDir) (*Replica, error) {
	var r Replica
	if err := readJSON(dir.File(), &r); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is not the directory of a replica (it has no replica.json): name one that `reseal init` made", dir)
		}
		return nil, fmt.Errorf("%w: %s", err, replicaAdvice)
	}
	if _, _, err := net.SplitHostPort(r.Listen); err != nil || r.ID == 0 || r.Keystore == "" || r.Genesis == "" {
		return nil, fmt.Errorf("%s: it needs id (from 1), listen (host:port), keystore (a URI) and genesis (a path): %s", dir.File(), replicaAdvice)
	}
	if !filepath.IsAbs(r.Genesis) {
		r.Genesis = filepath.Join(string(dir), r.Genesis)
	}
	if r.PassphraseFile != "" && !filepath.IsAbs(r.PassphraseFile) {
		r.PassphraseFile = filepath.Join(string(dir), r.PassphraseFile)
	}
	return &r, nil
}

// ReadConfig reads the measured configuration.
func ReadConfig(dir ReplicaDir) (*Config, error) {
	var c Config
	if err := readJSON(dir.Config(), &c); err != nil {
		return nil, fmt.Errorf("%w: %s", err, configAdvice)
	}
	if c.MemoryLimitMiB < 0 {
		return nil, fmt.Errorf("%s: memory_limit_mib is negative: give a size, or 0 for no limit", dir.Config())
	}
	return &c, nil
}

// readJSON reads one JSON value of known fields, and nothing after it.
func readJSON(path string, value any) error {
	text, err := files.Read(path, maxFile)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(value); err != nil {
		return fmt.Errorf("%s is not in order: %w", path, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s is not in order: something follows the JSON value", path)
	}
	return nil
}

// writeJSON writes a file that must not exist yet.
func writeJSON(path string, value any) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return err
	}
	return writeNew(path, text.Bytes(), 0o644)
}

// writeNew writes and syncs a file that must not exist yet.
func writeNew(path string, data []byte, mode fs.FileMode) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Sync(), file.Close())
}
