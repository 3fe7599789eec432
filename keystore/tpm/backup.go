package tpm

import (
	"context"
	"fmt"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// Backup returns what a lost directory is made again from (Options.Backup): the keys
// as this TPM encrypted them, and the authorizations of its counters and its lockout.
// It opens and signs nothing without this TPM in an approved boot state. Approvals are
// not in it: the operator gives them again.
func Backup(path string) ([]byte, error) {
	dir, err := statedir.New(path)
	if err != nil {
		return nil, err
	}
	if _, err := readConfig(dir); err != nil {
		return nil, err
	}
	return dir.Read(configFile)
}

// restore makes a directory again, and the counters, so that whatever the lost
// directory sealed is over.
func (s *Store) restore(ctx context.Context, o keystore.Options) error {
	cfg, err := parseBackup(o.Backup)
	if err != nil {
		return err
	}
	if err := s.connect(ctx, cfg, o); err != nil {
		return err
	}
	if err := s.operate(s.epochCounter.define); err != nil {
		return err
	}
	if err := s.dir.WriteJSON(configFile, cfg); err != nil {
		return err
	}
	if _, err := s.counterValue(); err != nil {
		return fmt.Errorf("after restoring: %w", err)
	}
	return nil
}
