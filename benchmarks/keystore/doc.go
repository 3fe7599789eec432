// Package keystore measures keystores on the devices that the user names, side
// by side in one run. It is what `reseal bench keystore` runs.
//
// Each operation is repeated for a while by a number of callers at once, on a
// keystore made for the purpose, which is removed afterwards. Reported are the
// median and the 99th percentile of what a caller waits, what all callers get
// done in a second, and, where the device can be told apart from this program,
// how much of the time the device took. Files are written through to the disk,
// so seal and advance include it.
package keystore
