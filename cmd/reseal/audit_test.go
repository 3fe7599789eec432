package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/internal/cluster"
)

// audit runs a script of an auditor in a directory that was exported, with the function of its README.
func audit(t *testing.T, dir, script string) (string, error) {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(dir, "README"))
	require.NoError(t, err)
	at := strings.Index(string(readme), "extend() {")
	require.Positive(t, at, "%s", readme)
	extend, _, _ := strings.Cut(string(readme)[at:], "\n")
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", extend+"\n"+script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// command is a command of the README, from its first word to the end of the line.
func command(t *testing.T, dir, word string) string {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(dir, "README"))
	require.NoError(t, err)
	at := strings.Index(string(readme), word)
	require.Positive(t, at, "%s", readme)
	line, _, _ := strings.Cut(string(readme)[at:], "\n")
	return line
}

// checkQuote has tpm2-tools and openssl verify an exported quote, by the commands of its README; with
// another nonce, or another statement, they refuse it.
func checkQuote(t *testing.T, dir string) {
	t.Helper()
	quote := command(t, dir, "tpm2_checkquote")
	out, err := audit(t, dir, quote)
	require.NoError(t, err, "%s (apt-get install tpm2-tools)", out)
	at := strings.LastIndex(quote, " ") + 1
	out, err = audit(t, dir, quote[:at]+strings.Repeat("00", len(quote[at:])/2))
	require.Error(t, err, out)
	out, err = audit(t, dir, command(t, dir, "tpm2_print"))
	require.NoError(t, err, out)
	require.Contains(t, out, "resetCount")
	for _, word := range []string{"openssl dgst -sha256 -verify ak.pem -signature time", "openssl dgst -sha256 -verify ak.pem -signature counter"} {
		line := command(t, dir, word)
		out, err = audit(t, dir, line)
		require.NoError(t, err, out)
		out, err = audit(t, dir, strings.Replace(line, ".msg", ".sig", 1))
		require.Error(t, err, out)
	}
}

// checkBoot follows the README from the files that a replica runs to the PCR that was quoted.
func checkBoot(t *testing.T, dir string, c cluster.Dir, member int) {
	t.Helper()
	genesis, err := filepath.Abs(c.Genesis())
	require.NoError(t, err)
	files := strings.NewReplacer("genesis.json", genesis, "RESEAL", program(t), "config.json", string(c.Replica(1).Config()), "VALUE", "$value")
	at := func(word string) string { return files.Replace(command(t, dir, word)) }
	out, err := audit(t, dir, fmt.Sprintf(`test "$(%s)" = "$(jq -r '.members[%d].attestation_key' %s)"`, at("tail -c"), member-1, genesis))
	require.NoError(t, err, out)
	out, err = audit(t, dir, at("founding=")+"\n"+at("value=")+"\n"+at("extend VALUE"))
	require.NoError(t, err, out)
	lines := strings.Split(out, "\n")
	require.Len(t, lines, 2, out)
	approved, err := audit(t, dir, `jq -r '.attestation.approved[0].pcrs["14"]' `+genesis)
	require.NoError(t, err)
	require.Equal(t, approved, lines[0])
	quoted, err := audit(t, dir, "tail -c 32 quote.pcrs | basenc --base16 -w0 | tr A-F a-f")
	require.NoError(t, err)
	require.Equal(t, quoted, lines[1], "the highest PCR is that of the approved state, claimed")
}

// checkEvidence follows the README of exported evidence: the quote, the boot, and what it is about.
func checkEvidence(t *testing.T, dir string, c cluster.Dir, member int) {
	t.Helper()
	checkBoot(t, dir, c, member)
	genesis, err := filepath.Abs(c.Genesis())
	require.NoError(t, err)
	out, err := audit(t, dir, `test "$(sha256sum nonce.input | cut -c1-64)" = "$(cat nonce)"`)
	require.NoError(t, err, out)
	out, err = audit(t, dir, fmt.Sprintf(`test "$(%s | cut -c1-64)" = "$(jq -r .cluster about.json)"`, strings.Replace(command(t, dir, "(printf 'reseal/v1/genesis"), "genesis.json", genesis, 1)))
	require.NoError(t, err, out)
	out, err = audit(t, dir, `
		about() { jq -r ".$1" about.json; }
		certificate=$(about anchor_certificate)
		hex=$(about cluster)$(printf %04x $(about replica))$(printf %016x%016x $(about epoch) $(about round))$(printf %04x $((${#certificate} / 2)))$certificate$(about epoch_key)
		(printf 'reseal/v1/quote-nonce\0'; printf %s "$hex" | tr a-f A-F | basenc --base16 -d) | cmp - nonce.input`)
	require.NoError(t, err, out)
}

// quoteByHand has the software TPM of a replica that does not run answer a nonce of one's own, by
// documented commands. A mistake before that costs no reboot.
func quoteByHand(t *testing.T, group children, c cluster.Dir, id int) {
	t.Helper()
	replica := filepath.Join(string(c), fmt.Sprintf("replica-%d", id))
	log, out := filepath.Join(t.TempDir(), "log"), filepath.Join(t.TempDir(), "quote")
	fails(t, []string{"launch", "--dir", replica, "--measure-only", "--powered"}, "leave --powered out")
	measured := group.start(log, "launch", "--dir", replica, "--measure-only")
	var uri string
	require.Eventually(t, func() bool {
		said, err := os.ReadFile(log)
		require.NoError(t, err)
		_, after, found := strings.Cut(string(said), "its TPM is at ")
		uri, _, _ = strings.Cut(after, " ")
		return found
	}, time.Minute, 10*time.Millisecond)
	quote := []string{"keystore", "quote", uri, "--dir", filepath.Join(replica, "keystore"), "--genesis", c.Genesis(), "--replica", fmt.Sprint(id),
		"--nonce", strings.Repeat("5a", 32), "--out"}
	fails(t, append(quote, t.TempDir()), "choose a new directory")
	succeeds(t, append(quote, out)...)
	checkQuote(t, out)
	checkBoot(t, out, c, id)
	fails(t, append(quote, out+"-again"), "claimed already")
	require.NoDirExists(t, out+"-again")
	require.NoError(t, measured.Process.Signal(os.Interrupt))
	require.NoError(t, measured.Wait())
}
