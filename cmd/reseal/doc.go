// Reseal runs replicated services that survive compromised machines and heal themselves.
//
//	reseal demo                         the main job on this machine, told as a story
//	reseal init --dir CLUSTER           makes a cluster: keys in TPMs, genesis, one directory per replica
//	reseal launch --dir CLUSTER/replica-1   measures a replica into its TPM, then runs it
//	reseal replica --dir CLUSTER/replica-1  runs a replica that was measured already
//	reseal put, get, status --dir CLUSTER   use the cluster; every reply is verified
//	reseal load --dir CLUSTER               puts a cluster under load and measures it
//	reseal order ... --dir CLUSTER          operators' orders: recovery rounds, boot states, quarantine
//
// Every command fails with one line that says what to do, and exit status 1.
package main
