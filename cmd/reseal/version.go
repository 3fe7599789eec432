package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/internal/boot"
)

// version says what this program is: what it was built from, and its own bytes, as boot chains
// measure them.
type version struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"` // the tree had changes beside the commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
	SHA256   string `json:"sha256"` // of the file of the program
}

func newVersionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Say what this program was built from, and the digest of its file",
		Long:    `Version says what this program was built from, and the SHA-256 digest of its file: what is measured into a TPM and approved is this digest.`,
		Example: "  reseal version --json",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := readVersion()
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
			}
			commit := v.Commit
			if commit == "" {
				commit = "not known: built outside of a checkout"
			}
			if v.Modified {
				commit += ", with changes"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "reseal %s\ncommit %s\nbuilt by %s for %s\nsha256 %s\n", v.Version, commit, v.Go, v.Platform, v.SHA256)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

func readVersion() (*version, error) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil, errors.New("this program does not say what it was built from: build it with go build")
	}
	v := &version{Version: info.Main.Version, Go: info.GoVersion}
	settings := make(map[string]string)
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	v.Commit, v.Modified = settings["vcs.revision"], settings["vcs.modified"] == "true"
	v.Platform = settings["GOOS"] + "/" + settings["GOARCH"]
	self, err := boot.Measure("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	v.SHA256 = hex.EncodeToString(self[0].Digest[:])
	return v, nil
}
