// Package boot stands for the part of a machine's boot chain that measures the replica: before the
// replica starts, its binary and its configuration are hashed and extended into a PCR of the TPM,
// so that a quote shows what was started. On a real machine the firmware, the boot loader and the
// kernel (IMA) do this, each for the next stage; a program that measures itself proves nothing.
package boot
