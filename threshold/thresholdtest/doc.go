// Package thresholdtest makes sharings for tests and measurements, where nobody has to be kept from
// knowing the secret.
package thresholdtest
