// Package softhsm makes SoftHSM tokens in a directory of their own, for tests,
// demonstrations and development.
//
// SoftHSM reads its configuration from the file that the environment variable
// SOFTHSM2_CONF names when the library is initialised, so a process sees the
// tokens of one directory at a time: give child processes Env, or call Use
// before the first keystore of this process is opened.
//
// A SoftHSM token is a directory of files. It protects nothing from whoever
// reads them; it shows that a program works with PKCS#11.
package softhsm
