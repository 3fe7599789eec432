// Package device opens keystores by URI, whatever the backend. It stands apart
// from package keystore so that verifiers, which need that package only, do not
// link the drivers.
//
//	tpm:/dev/tpmrm0                a TPM, by the kernel's resource manager
//	tpm:unix:/path                 a software TPM at a socket
//	tpm:tcp:host:port              the same over TCP
//	pkcs11:token=NAME?module-path=/path.so&pin-source=file:/path
//	                               an HSM (RFC 7512), see package hsm
//	file:/path?passphrase-source=file:/path
//	                               files, for development
//
// TPMs take "?slot=N" for more than one keystore on one TPM. TPMs and HSMs need
// a directory for what they seal: keystore.WithDir.
package device
