// Package papertpm writes by hand what a TPM says about itself, so that tests and
// simulators can make one say anything. It keeps no secret and has no commands.
package papertpm
