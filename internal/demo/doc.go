// Package demo is the main job of Reseal on one machine, told as a story in acts: a cluster of
// operating-system processes, each with a TPM of its own, that serves verified clients while every
// replica in turn is rebooted, attests and receives a fresh share; while a tampered replica is
// refused; and while another crashes. Everything is checked as it happens; [Run] fails unless all
// of it held.
//
// A reader's path: demo.go (the acts in order), act_*.go (one act each), report.go (what came out). What
// it plays on is package stage.
package demo
