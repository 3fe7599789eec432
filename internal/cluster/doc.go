// Package cluster is the layout on disk of a cluster on one machine, as `reseal init` makes it and
// the other commands use it:
//
//	CLUSTER/genesis.json        what every replica and client starts from; holds no secret
//	CLUSTER/operator.key        Ed25519, signs orders to the cluster (PEM, 0600)
//	CLUSTER/boot-approval.key   ECDSA P-256, approves boot states towards the TPMs (PEM, 0600)
//	CLUSTER/replica-N/
//	    replica.json            number, address, keystore: what tells this replica from the others
//	    config.json             the measured configuration, the same bytes for every replica
//	    keystore/               sealed shares and approvals; worth nothing without the device
//	    store/                  the log and the state
//	    tpm/                    state of the software TPM
package cluster
