// Package keystoretest is the conformance suite of keystores: what every
// backend promises, as tests. Authors of backends run it with their own device.
package keystoretest
