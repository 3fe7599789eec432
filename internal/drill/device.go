package drill

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/internal/stage"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/tpm"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/recovery/handoff"
)

// devices are the drills of others who use a replica's machine and its TPM.
var devices = []Drill{
	{
		Name: "planted-key", keystore: cluster.SWTPM, play: plantedKey,
		Summary: "root seals a secret of its own as the replica's next one before the reboot: what the clean boot attests and signs with is another",
	},
	{
		Name: "swapped-operator", keystore: cluster.SWTPM, play: swappedOperator,
		Summary: "the key that approves boot states is exchanged on a replica's disk: its TPM refuses that boot, and nothing is sealed under it",
	},
	{
		Name: "tpm-user", keystore: cluster.SWTPM, play: tpmUser,
		Summary: "somebody else reaches a running replica's TPM, with a copy of its directory: the keys answer to the replica alone",
	},
	{
		Name: "same-boot", keystore: cluster.SWTPM, play: sameBoot,
		Summary: "a replica is killed and started again without a reboot: nothing opens, nothing is attested; after a reboot it is back",
	},
	{
		Name: "evicted-key", keystore: cluster.SWTPM, play: evictedKey,
		Summary: "another user would evict the replica's keys from its TPM, and may not; the owner does so, and mends it by one command",
	},
	{
		Name: "cleared-tpm", keystore: cluster.SWTPM, play: clearedTPM,
		Summary: "a machine comes up with another TPM, then with its own, which somebody has cleared: it says which, and what to do; the others go on",
	},
	{
		Name: "forged-quote", keystore: cluster.SWTPM, play: forgedQuote,
		Summary: "evidence is replayed, and submitted with altered quotes: refused, and held against nobody",
	},
}

// refused notes that something failed, as it must.
func (r *Rehearsal) refused(err error, promise string) {
	detail := "it was done"
	if err != nil {
		detail = err.Error()
	}
	r.Check(err != nil, promise, "%s", detail)
}

// planter is a keystore that remembers what is sealed: an intruder has the program that replicas
// run make a secret for it, in the form that they read.
type planter struct {
	keystore.Keystore
	sealed []byte
}

func (p *planter) Seal(_ uint64, secret []byte) error {
	p.sealed = bytes.Clone(secret)
	return nil
}

func plantedKey(ctx context.Context, r *Rehearsal) error {
	m := r.Machines[0]
	before, err := r.OpenRound(ctx, m.ID)
	if err != nil {
		return err
	}
	var own planter
	public, err := handoff.SealGenesisKey(&own)
	if err != nil {
		return err
	}
	ks, err := cluster.OpenKeystore(ctx, m.Dir, m.Settings)
	if err != nil {
		return err
	}
	err = ks.Seal(uint64(before.Epoch)+1, own.sealed)
	if err = errors.Join(err, ks.Close()); err != nil {
		return err
	}
	r.Show.Event("root seals a secret for epoch %d in the keystore of replica %d", before.Epoch+1, m.ID)
	m.Crash()
	if err := r.Reboot(m); err != nil {
		return err
	}
	after, err := r.AwaitEpoch(ctx, before.Epoch+1)
	if err != nil {
		return err
	}
	now := after.Member(m.ID)
	r.Check(!bytes.Equal(now.EpochKey, public), "the log names a key that the clean boot made", "%x...", now.EpochKey[:8])
	r.Check(now.HoldsShare && now.Attested, "the replica attested and has a share", "%s", now.Status)
	return r.AwaitBack(ctx, m, after)
}

func swappedOperator(ctx context.Context, r *Rehearsal) error {
	m := r.Machines[0]
	genesis, err := os.ReadFile(r.Dir.Genesis())
	if err != nil {
		return err
	}
	g, err := governance.ParseGenesis(genesis)
	if err != nil {
		return err
	}
	// The key is exchanged for another one that parses: some other member's identity.
	text := base64.StdEncoding.EncodeToString
	forged := filepath.Join(r.Scratch, "genesis.json")
	swapped := bytes.Replace(genesis, []byte(text(g.BootApproval)), []byte(text(g.Members[1].Identity)), 1)
	if err := os.WriteFile(forged, swapped, 0o600); err != nil {
		return err
	}
	settings, err := os.ReadFile(m.Dir.File())
	if err != nil {
		return err
	}
	m.Crash()
	if err := os.WriteFile(m.Dir.File(), bytes.Replace(settings, []byte("../genesis.json"), []byte(forged), 1), 0o600); err != nil {
		return err
	}
	r.Show.Event("replica %d boots with a genesis in which another key approves boot states", m.ID)
	if err := r.Reboot(m); err != nil {
		return err
	}
	words, err := m.AwaitStop(ctx)
	if err != nil {
		return err
	}
	r.Check(words != "", "the replica does not run, and says why", "%s", words)
	if err := os.WriteFile(m.Dir.File(), settings, 0o600); err != nil {
		return err
	}
	if err := r.Reboot(m); err != nil {
		return err
	}
	v, err := r.Await(ctx, "the restored replica votes", func(v *stage.Sight) bool { return v.Votes(m.ID, v.Epoch) })
	if err == nil {
		r.Check(true, "restored, it votes again", "in epoch %d", v.Epoch)
	}
	return err
}

func tpmUser(ctx context.Context, r *Rehearsal) error {
	m := r.Machines[0]
	seen, err := r.Control.Look(ctx)
	if err != nil {
		return err
	}
	copied := filepath.Join(r.Scratch, "copied")
	if err := m.BackUp(copied); err != nil {
		return err
	}
	ks, err := cluster.OpenKeystoreAt(ctx, m.Dir, m.Settings, copied)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ks.Close()) }()
	secret, openErr := ks.Unseal(uint64(seen.Epoch))
	clear(secret)
	r.refused(openErr, "the running epoch's secret does not open to another process")
	r.refused(ks.Claim(), "the boot is not claimed twice")
	digest := sha256.Sum256([]byte("a credential"))
	_, signErr := ks.Identity().Sign(rand.Reader, digest[:], crypto.SHA256)
	r.refused(signErr, "the identity key signs nothing for another process")
	_, quoteErr := ks.(keystore.Attester).Quote(digest[:])
	r.refused(quoteErr, "the TPM attests nothing for another process")
	empty := filepath.Join(r.Scratch, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		return err
	}
	_, emptyErr := cluster.OpenKeystoreAt(ctx, m.Dir, m.Settings, empty)
	r.refused(emptyErr, "without a copy of the directory there is nothing to open")
	return r.everybodyVotes(ctx, prompt)
}

func sameBoot(ctx context.Context, r *Rehearsal) error {
	m := r.Machines[0]
	for _, round := range []bool{false, true} {
		if round {
			if _, err := r.OpenRound(ctx, m.ID); err != nil {
				return err
			}
			r.Show.Event("replica %d is due now", m.ID)
		}
		m.Crash()
		if err := m.Run(r.Program); err != nil {
			return err
		}
		r.Show.Event("replica %d is killed, and started again without a reboot", m.ID)
		words, err := m.AwaitStop(ctx)
		if err != nil {
			return err
		}
		r.Check(strings.Contains(words, "boot"), "it does not run in a boot that was claimed, and says so", "%s", words)
		if err := r.Reboot(m); err != nil {
			return err
		}
		v, err := r.Await(ctx, "the replica votes after a reboot", func(v *stage.Sight) bool { return v.Votes(m.ID, v.Epoch) && v.Phase != cluster.PhaseAttesting })
		if err != nil {
			return err
		}
		r.Check(true, "after a reboot it votes", "in epoch %d", v.Epoch)
	}
	return nil
}

func evictedKey(ctx context.Context, r *Rehearsal) error {
	m := r.Machines[0]
	o := keystore.Options{Timeout: prompt}
	r.refused(tpm.EvictKeys(ctx, m.TPM.URI(), o), "another user of the TPM evicts no key of the replica")
	// Whoever has the operators' file may.
	owner := m.TPM.URI() + "?owner-auth-source=file:" + r.Dir.HierarchiesAuth(m.ID)
	if err := tpm.EvictKeys(ctx, owner, o); err != nil {
		return err
	}
	r.Show.Event("the owner of the machine has evicted the attestation key of replica %d", m.ID)
	out, err := r.reseal(ctx, "keystore", "status", owner, "--dir", m.Dir.Keystore(), "--genesis", r.Dir.Genesis(), "--replica", strconv.Itoa(int(m.ID)))
	r.Check(err == nil, "`keystore status` with the owner's authorization makes it again", "%s", lastLine(out))
	_, after, err := r.recover(ctx, m.ID)
	if err != nil {
		return err
	}
	now := after.Member(m.ID)
	r.Check(now.Attested && now.HoldsShare, "the replica attests and has a share", "%s", now.Status)
	return nil
}

// lastLine is the last line of what a program said.
func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

func forgedQuote(ctx context.Context, r *Rehearsal) error {
	m := r.Machines[0]
	if _, _, err := r.recover(ctx, m.ID); err != nil {
		return err
	}
	genuine, err := r.Control.Evidence(ctx, m.ID)
	if err != nil {
		return err
	}
	before, err := r.OpenRound(ctx, m.ID)
	if err != nil {
		return err
	}
	quote := bytes.Clone(genuine.Quote)
	quote[len(quote)/2] ^= 1
	for _, forgery := range []struct {
		name string
		bend func(e *attest.Evidence)
	}{
		{"replayed", func(*attest.Evidence) {}},
		{"said to be of this round", func(e *attest.Evidence) { e.Epoch, e.Round = before.Epoch, governance.Round(before.Round) }},
		{"with an altered quote", func(e *attest.Evidence) { e.Quote = quote }},
		{"in another replica's name", func(e *attest.Evidence) { e.Replica = m.ID%bft.ReplicaID(r.Size.N()) + 1 }},
	} {
		e := *genuine
		forgery.bend(&e)
		r.refused(r.Control.Submit(ctx, &governance.Attest{Evidence: &e}), "the last recovery's evidence, "+forgery.name+", is refused")
	}
	seen, err := r.Control.Look(ctx)
	if err != nil {
		return err
	}
	status := seen.Member(m.ID).Status
	r.Check(!strings.Contains(status, "refused"), "what others submit in its name is not held against it", "%s", status)
	m.Crash()
	if err := r.Reboot(m); err != nil {
		return err
	}
	after, err := r.AwaitEpoch(ctx, before.Epoch+1)
	if err != nil {
		return err
	}
	return r.AwaitBack(ctx, m, after)
}
