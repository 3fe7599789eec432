package cluster

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/reseal-bft/reseal/bft"
)

// Dir is the directory of a cluster.
type Dir string

// Genesis is the path of the genesis.
func (d Dir) Genesis() string { return filepath.Join(string(d), "genesis.json") }

// OperatorKey is the path of the key that signs orders.
func (d Dir) OperatorKey() string { return filepath.Join(string(d), "operator.key") }

// BootApprovalKey is the path of the key that approves boot states.
func (d Dir) BootApprovalKey() string { return filepath.Join(string(d), "boot-approval.key") }

// HierarchiesAuth is the path of the authorization of the hierarchies of a replica's TPM. The
// replica does not need it.
func (d Dir) HierarchiesAuth(id bft.ReplicaID) string {
	return filepath.Join(string(d), fmt.Sprintf("tpm-%d.auth", id))
}

// Replica is the directory of one replica.
func (d Dir) Replica(id bft.ReplicaID) ReplicaDir {
	return ReplicaDir(filepath.Join(string(d), fmt.Sprintf("replica-%d", id)))
}

// ReplicaDir is the directory of one replica.
type ReplicaDir string

// File is the path of the replica's own settings.
func (d ReplicaDir) File() string { return filepath.Join(string(d), "replica.json") }

// Config is the path of the measured configuration.
func (d ReplicaDir) Config() string { return filepath.Join(string(d), "config.json") }

// Keystore is the directory of the sealed secrets.
func (d ReplicaDir) Keystore() string { return filepath.Join(string(d), "keystore") }

// Store is the directory of the log and the snapshots.
func (d ReplicaDir) Store() string { return filepath.Join(string(d), "store") }

// State is the directory of the built-in store's data. It is made again at every start.
func (d ReplicaDir) State() string { return filepath.Join(string(d), "state") }

// TPM is the directory of the software TPM's state.
func (d ReplicaDir) TPM() string { return filepath.Join(string(d), "tpm") }

// Log is the file of the replica's output, when another command runs it.
func (d ReplicaDir) Log() string { return filepath.Join(string(d), "replica.log") }

// HasTPM reports whether the replica has a software TPM of its own.
func (d ReplicaDir) HasTPM() bool {
	info, err := os.Stat(d.TPM())
	return err == nil && info.IsDir()
}
