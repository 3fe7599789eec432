// Package tpm2tools writes quotes in the files of tpm2-tools, so that an auditor verifies them with
// tpm2_checkquote and needs no code of this module. It does not verify anything itself, see
// [keystore.VerifyQuote].
package tpm2tools
