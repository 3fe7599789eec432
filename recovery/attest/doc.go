// Package attest says how a replica shows that it came up clean, and judges it: [Evidence] binds a
// fresh epoch key to a quote of the TPM and to a recent certificate, and a [Policy] holds it
// against what is approved. It is pure: every replica comes to the same verdict, and refuses with
// the same words.
//
// # What it does not promise
//
// A quote tells what was measured at boot. It does not tell what an intruder did to the running
// machine afterwards: that ends with the next recovery. A TPM's word is as good as its endorsement,
// which is checked at enrolment. Without TPMs ([Attestation].Required false) evidence proves
// possession of the identity key and nothing about the machine. An approved boot state is trusted
// because operators say so.
package attest
