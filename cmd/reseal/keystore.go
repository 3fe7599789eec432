package main

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/internal/files"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/check"
	"github.com/reseal-bft/reseal/keystore/device"
	"github.com/reseal-bft/reseal/keystore/tpm"
)

// maxInput bounds a file that a command line names, in bytes.
const maxInput = 8 << 20

const keystoreURIs = `
A keystore is named by a URI:

  tpm:/dev/tpmrm0                 a TPM, by the kernel's resource manager
  tpm:unix:/path  tpm:tcp:H:P     a software TPM; where it has an owner: ?owner-auth-source=file:/path
  pkcs11:token=NAME?module-path=/path.so&pin-source=file:/path
                                  a token (RFC 7512); pin-source=env:NAME reads the environment
  file:/path?passphrase-source=file:/path
                                  files, for development

A passphrase or PIN that the URI does not point to is asked for on the terminal.`

func newKeystoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keystore",
		Short: "Check, make and describe the keystore of a replica",
		Long:  "Check, make and describe the keystore of a replica: a TPM, an HSM or files.\n" + keystoreURIs,
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeystoreCheckCommand(), newKeystoreInitCommand(), newKeystoreBackupCommand(), newKeystoreStatusCommand(),
		newKeystorePredictCommand(), newKeystoreQuoteCommand())
	return cmd
}

func newKeystoreCheckCommand() *cobra.Command {
	var jsonFile string
	cmd := &cobra.Command{
		Use:   "check URI",
		Short: "Try on a device all that a keystore promises, attacks included",
		Long: `Check makes a keystore of its own on the device, beside those that are there, tries everything that a keystore promises,
plays the attacks that it must withstand, and removes what it made. The table says what works, what does not, and what that means.
The exit status is 0 when everything that the device claims works.
` + keystoreURIs,
		Args: oneURI,
		RunE: func(cmd *cobra.Command, args []string) error {
			report, err := check.Run(cmd.Context(), args[0], keystore.WithPrompt(askTerminal))
			if err != nil {
				return err
			}
			if jsonFile != "" {
				if err := writeKeystoreJSON(cmd.OutOrStdout(), jsonFile, report); err != nil {
					return err
				}
			}
			if jsonFile != "-" {
				if err := printReport(cmd.OutOrStdout(), report); err != nil {
					return err
				}
			}
			if n := report.Failed(); n > 0 {
				return fmt.Errorf("%d of %d checks failed on %s", n, len(report.Rows), report.Device)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&jsonFile, "json", "", "write the report as JSON to a file (- for standard output)")
	return cmd
}

// printReport prints the table of a check.
func printReport(w io.Writer, r *check.Report) error {
	kind := "hardware"
	if r.Software {
		kind = "software: it protects nothing from whoever reads its files"
	}
	fmt.Fprintf(w, "%s, %s (%s)\n\n", r.URI, r.Device, kind)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CHECK\tOUTCOME\tMS\tWHAT IT MEANS")
	for _, row := range r.Rows {
		means := row.Means
		if row.Detail != "" {
			means = strings.ReplaceAll(row.Detail, "\n", "; ")
		}
		fmt.Fprintf(t, "%s\t%s\t%.1f\t%s\n", row.Check, row.Outcome, row.Millis, means)
	}
	return t.Flush()
}

// keystoreFlags say which keystore, and, for a TPM, what is not to be taken from its directory.
type keystoreFlags struct {
	dir, operatorFile, pcrs, genesis string
	replica                          uint16
}

func (f *keystoreFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.dir, "dir", "", "directory of what is sealed (not for files, whose URI says it)")
	cmd.Flags().StringVar(&f.operatorFile, "operator-key", "", "file with the public key by which operators approve boot states (TPM)")
	cmd.Flags().StringVar(&f.pcrs, "pcrs", "", "PCRs that sealing is bound to, such as 0,2,4,7,14 (TPM)")
	cmd.Flags().StringVar(&f.genesis, "genesis", "", "genesis to take --operator-key and --pcrs from (TPM)")
	cmd.Flags().Uint16Var(&f.replica, "replica", 0, "replica whose TPM it has to be, with --genesis")
}

func (f *keystoreFlags) options() ([]keystore.Option, error) {
	opts := []keystore.Option{keystore.WithDir(f.dir), keystore.WithPrompt(askTerminal)}
	if f.genesis != "" {
		if f.operatorFile != "" || f.pcrs != "" {
			return nil, errors.New("--genesis says what --operator-key and --pcrs would: leave those out")
		}
		founded, err := cluster.KeystoreOptions(f.genesis, bft.ReplicaID(f.replica))
		return append(opts, founded...), err
	}
	if f.pcrs != "" {
		var s keystore.Selection
		if err := s.UnmarshalText([]byte(f.pcrs)); err != nil {
			return nil, err
		}
		opts = append(opts, keystore.WithPCRs(s))
	}
	if f.operatorFile != "" {
		key, err := readOperatorKey(f.operatorFile)
		if err != nil {
			return nil, err
		}
		opts = append(opts, keystore.WithOperatorKey(key))
	}
	return opts, nil
}

func newKeystoreInitCommand() *cobra.Command {
	var flags keystoreFlags
	var backup string
	var adopt bool
	cmd := &cobra.Command{
		Use:   "init URI --dir DIR",
		Short: "Make a keystore on a device",
		Long: `Init makes an identity key in the device and writes what belongs to it to a directory.

A TPM needs the public key by which operators approve boot states (PEM, ECDSA P-256). With --backup it makes a lost directory again, from what
"reseal keystore backup" wrote; --adopt does so for a token, in which the identity key is. What was sealed is erased either way.

On a TPM init also gives the owner, endorsement and lockout hierarchies an authorization, unless they have one, and writes it to hierarchies.auth
in DIR: move that file to where the operators keep their keys. Whoever has it can remove the keystore from the TPM; the replica does not need it.
` + keystoreURIs,
		Args: oneURI,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			opts, err := flags.options()
			if err != nil {
				return err
			}
			if adopt {
				opts = append(opts, keystore.WithAdopt())
			}
			if backup != "" {
				data, err := files.Read(backup, maxInput)
				if err != nil {
					return fmt.Errorf("backup: %w", err)
				}
				opts = append(opts, keystore.WithBackup(data))
			}
			k, err := device.Init(cmd.Context(), args[0], opts...)
			if err != nil {
				return err
			}
			return printStatus(cmd.OutOrStdout(), k, false)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&backup, "backup", "", "make a lost directory again from this file (TPM)")
	cmd.Flags().BoolVar(&adopt, "adopt", false, "make a lost directory again for the identity key that the token holds")
	return cmd
}

func newKeystoreBackupCommand() *cobra.Command {
	var dir, out string
	cmd := &cobra.Command{
		Use:   "backup --dir DIR --out FILE",
		Short: "Write what a lost directory of a TPM's keystore is made again from",
		Long: `Backup writes the keys of a keystore as its TPM encrypted them, and the authorization of its counters. The file
does not change while the keystore lasts, and opens and signs nothing without this TPM in an approved boot state. Keep it where the machine's
disk is not; who has it and the TPM can make the replica lose its share.`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			data, err := tpm.Backup(dir)
			if err != nil {
				return err
			}
			f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return fmt.Errorf("backup: %w", err)
			}
			_, err = f.Write(data)
			return errors.Join(err, f.Sync(), f.Close())
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "directory of the keystore")
	cmd.Flags().StringVar(&out, "out", "", "file to write; it must not exist")
	return cmd
}

func newKeystoreStatusCommand() *cobra.Command {
	var flags keystoreFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status URI --dir DIR",
		Short: "Describe a keystore: identity, epoch, what the device does and what it cannot do",
		Long:  "Describe a keystore. It may be in use by a replica at the time. A TPM needs --genesis and --replica, or --operator-key.\n" + keystoreURIs,
		Args:  oneURI,
		RunE: func(cmd *cobra.Command, args []string) error {
			opts, err := flags.options()
			if err != nil {
				return err
			}
			k, err := device.Open(cmd.Context(), args[0], opts...)
			if err != nil {
				return err
			}
			return printStatus(cmd.OutOrStdout(), k, asJSON)
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printStatus prints the status of a keystore and closes it.
func printStatus(w io.Writer, k keystore.Keystore, asJSON bool) (err error) {
	defer func() { err = errors.Join(err, k.Close()) }()
	st, err := k.Status()
	if err != nil {
		return err
	}
	if asJSON {
		return writeKeystoreJSON(w, "-", st)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "kind\t%s\ndevice\t%s\nsoftware\t%v\nidentity\t%s\nepoch\t%d\n", st.Kind, st.Device, st.Software, st.Identity, st.Epoch)
	if st.Counter != 0 {
		fmt.Fprintf(t, "counter\t%d\nreset count\t%d\nPCRs\t%v\napprovals\t%d, of version %d or later\n",
			st.Counter, st.ResetCount, st.PCRs, st.Approvals, st.ApprovalVersion)
	}
	for _, h := range st.Held {
		state := "opens"
		if !h.Opens {
			state = "does not open: " + h.Problem
		}
		fmt.Fprintf(t, "sealed\tepoch %d, %s\n", h.Epoch, state)
	}
	for _, s := range st.Capabilities {
		fmt.Fprintf(t, "does\t%s\n", s)
	}
	for _, s := range st.Cautions {
		fmt.Fprintf(t, "beware\t%s\n", s)
	}
	return t.Flush()
}

// writeKeystoreJSON writes v to a file, or to out for "-".
func writeKeystoreJSON(out io.Writer, name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if name == "-" {
		_, err = out.Write(data)
		return err
	}
	return os.WriteFile(name, data, 0o644)
}

// oneURI refuses anything but one argument, and says what it is.
func oneURI(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("name one keystore by its URI: see `%s --help`", cmd.CommandPath())
	}
	return nil
}

// askTerminal asks for a passphrase or PIN, without an echo.
func askTerminal(what string) (keystore.Secret, error) {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return keystore.Secret{}, nil
	}
	fmt.Fprintf(os.Stderr, "%s: ", what)
	secret, err := term.ReadPassword(fd)
	fmt.Fprintln(os.Stderr)
	return keystore.NewSecret(secret), err
}

// readOperatorKey reads a PEM file with a public key (PKIX).
func readOperatorKey(name string) (*ecdsa.PublicKey, error) {
	data, err := files.Read(name, maxInput)
	if err != nil {
		return nil, fmt.Errorf("operator key: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("operator key: %s is not a PEM file with a PUBLIC KEY: `openssl pkey -pubout` writes one", name)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("operator key: %s: %w", name, err)
	}
	public, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("operator key: %s holds %T, and boot states are approved by ECDSA P-256", name, key)
	}
	return public, nil
}
