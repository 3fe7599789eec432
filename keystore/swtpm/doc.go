// Package swtpm makes and runs software TPMs for tests and demonstrations:
// swtpm processes with an endorsement key, its certificate, and a local
// certification authority.
//
// A TPM lives in a directory. Manufacture writes it there once; Start runs it.
// The process is in a process group of its own and serves whoever connects to
// its URI, one client at a time, also after a client died. Reboot and PowerCut
// do what the reset button and the plug of a machine do.
//
// A software TPM protects nothing: its state is a file that can be copied and
// put back, so its counters can be rolled back. Its certificate says so.
package swtpm
