package tpm

import (
	"context"
	"fmt"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// Backup returns what a lost directory is made again from (Options.Backup): the keys
// as this TPM encrypted them, and the authorization of its counters.
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

// restore makes a directory again, and counts past everything that may have been sealed
// with the lost one: an envelope is bound to at most maxAhead more than the counter
// showed.
func (s *Store) restore(ctx context.Context, o keystore.Options) error {
	cfg, err := parseBackup(o.Backup)
	if err != nil {
		return err
	}
	if err := s.connect(ctx, cfg, o); err != nil {
		return err
	}
	value, err := s.counterValue()
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if err := s.raise(s.epochCounter, value, value+maxAhead+1); err != nil {
		return fmt.Errorf("restore: end what was sealed: %w", err)
	}
	return s.dir.WriteJSON(configFile, cfg)
}
