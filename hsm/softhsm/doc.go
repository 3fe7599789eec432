// Package softhsm makes SoftHSM tokens in a directory of their own, for tests,
// demonstrations and development.
//
// SoftHSM reads its configuration from the file that the environment variable
// SOFTHSM2_CONF names when the library is initialised, so a process sees the
// tokens of one directory at a time. The URIs of tokens made here name the file
// (x-softhsm2-conf), and the keystore sets the variable; other programs need Env.
//
// A SoftHSM token is a directory of files. It protects nothing from whoever
// reads them; it shows that a program works with PKCS#11.
package softhsm
