package drill

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/boot"
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
		Name: "same-boot", keystore: cluster.SWTPM, play: sameBoot, deadline: 2 * time.Minute, // it starts twice before it attests
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
		Summary: "evidence is replayed and altered, by others than the replica: refused, and held against nobody; and no altered quote verifies",
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

// impostor is a genesis that is the cluster's but for the key that approves boot states, which is the
// intruder's. By it he approves the boot that measures it, and every boot that operators approved.
func (r *Rehearsal) impostor(m *stage.Machine) (path string, err error) {
	g, err := governance.Load(r.Dir.Genesis())
	if err != nil {
		return "", err
	}
	his, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	if g.BootApproval, err = x509.MarshalPKIXPublicKey(&his.PublicKey); err != nil {
		return "", err
	}
	files, err := boot.Measure(r.Program, m.Dir.Config())
	if err != nil {
		return "", err
	}
	own := attest.ApprovedState{Name: "his", PCRs: maps.Clone(g.Attestation.Approved[0].PCRs)}
	own.PCRs[boot.PCR] = keystore.PredictPCR(files[0].Digest, files[1].Digest, g.FoundingDigest())
	g.Attestation.Approved = append(g.Attestation.Approved, own)
	for i := range g.Attestation.Approved {
		state := &g.Attestation.Approved[i]
		if state.Approvals, err = g.Approve(rand.Reader, his, state, func(id bft.ReplicaID) uint64 { return g.Members[id-1].ApprovalVersion }); err != nil {
			return "", err
		}
	}
	path = filepath.Join(r.Scratch, "genesis.json")
	return path, g.Save(path)
}

func swappedOperator(ctx context.Context, r *Rehearsal) error {
	m := r.Machines[0]
	forged, err := r.impostor(m)
	if err != nil {
		return err
	}
	genuine, err := os.ReadFile(m.Dir.File())
	if err != nil {
		return err
	}
	swapped := bytes.Replace(genuine, []byte("../genesis.json"), []byte(forged), 1)
	if bytes.Equal(swapped, genuine) {
		return fmt.Errorf("%s does not name the genesis", m.Dir.File())
	}
	m.Crash()
	before, err := sealedFiles(m)
	if err != nil {
		return err
	}
	// The log on the disk names its cluster, too. He has no use of it.
	const aside = ".aside"
	if err := os.Rename(m.Dir.Store(), m.Dir.Store()+aside); err != nil {
		return err
	}
	for _, measured := range []string{"as it is", "as the cluster's"} {
		if err := m.PowerCycle(); err != nil {
			return err
		}
		if err := os.RemoveAll(m.Dir.Store()); err != nil {
			return err
		}
		if measured == "as it is" {
			if err := os.WriteFile(m.Dir.File(), swapped, 0o600); err != nil {
				return err
			}
			err = m.Boot(r.Program, r.Program)
		} else {
			// Somebody changes the file between the boot chain and the replica.
			if _, err := cluster.MeasureBoot(ctx, m.Dir, m.Settings, r.Program); err != nil {
				return err
			}
			err = m.Run(r.Program)
		}
		if err != nil {
			return err
		}
		r.Show.Event("replica %d starts with a genesis in which his key approves boot states; it was measured %s", m.ID, measured)
		words, err := m.AwaitStop(ctx)
		if err != nil {
			return err
		}
		r.Check(strings.Contains(words, "another operator key"), "its TPM refuses, and the replica does not run (the genesis was measured "+measured+")", "%s", words)
	}
	after, err := sealedFiles(m)
	if err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(m.Dir.Store()), os.Rename(m.Dir.Store()+aside, m.Dir.Store())); err != nil {
		return err
	}
	r.Check(len(before) > 0 && maps.Equal(before, after), "nothing was sealed under his key", "%d sealed secrets are as they were", len(before))
	if err := os.WriteFile(m.Dir.File(), genuine, 0o600); err != nil {
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

// sealedFiles are the sealed secrets in a machine's keystore, by name.
func sealedFiles(m *stage.Machine) (map[string]string, error) {
	names, err := filepath.Glob(filepath.Join(m.Dir.Keystore(), "sealed-*"))
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		files[filepath.Base(name)] = string(data)
	}
	return files, nil
}

func tpmUser(ctx context.Context, r *Rehearsal) (err error) {
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
	var refusal *keystore.RefusedError
	r.Check(errors.As(openErr, &refusal), "the running epoch's secret does not open to another process", "%v", openErr)
	claimErr := ks.Claim()
	r.Check(errors.Is(claimErr, keystore.ErrClaimed), "the boot is not claimed twice", "%v", claimErr)
	if err := r.answersToNobody(ctx, m, copied); err != nil {
		return err
	}
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
		r.Check(strings.Contains(words, "claimed already"), "it does not run in a boot that was claimed, and says so", "%s", words)
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
	if err := r.altersQuote(genuine); err != nil {
		return err
	}
	quote := bytes.Clone(genuine.Quote)
	quote[len(quote)/2] ^= 1
	const notSigned = "not signed by the identity key"
	for _, forgery := range []struct {
		name, reason string
		bend         func(e *attest.Evidence)
	}{
		{"replayed", "the evidence is for epoch", func(*attest.Evidence) {}},
		{"said to be of this round", notSigned, func(e *attest.Evidence) { e.Epoch, e.Round = before.Epoch, governance.Round(before.Round) }},
		{"with an altered quote", notSigned, func(e *attest.Evidence) { e.Quote = quote }},
		{"in another replica's name", "is not due", func(e *attest.Evidence) { e.Replica = m.ID%bft.ReplicaID(r.Size.N()) + 1 }},
	} {
		e := *genuine
		forgery.bend(&e)
		err := r.Control.Submit(ctx, &governance.Attest{Evidence: &e})
		r.Check(err != nil && strings.Contains(err.Error(), forgery.reason), "the last recovery's evidence, "+forgery.name+", is refused", "%v", err)
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

// altersQuote takes the quote that admitted a replica, which verifies, and alters each part of it: as
// who has the replica's identity key, but not its TPM, would have to.
func (r *Rehearsal) altersQuote(e *attest.Evidence) error {
	g, err := governance.Load(r.Dir.Genesis())
	if err != nil {
		return err
	}
	nonce := attest.Nonce(g.ClusterID(), e.Replica, e.Epoch, e.Round, e.Certificate.Signature, e.EpochKey)
	later := attest.Nonce(g.ClusterID(), e.Replica, e.Epoch, e.Round+1, e.Certificate.Signature, e.EpochKey)
	key, others := g.Members[e.Replica-1].AttestationKey, g.Members[int(e.Replica)%len(g.Members)].AttestationKey
	verifies := func(key []byte, nonce [sha256.Size]byte, alter func(q *keystore.Quote)) error {
		q, err := keystore.ParseQuote(bytes.Clone(e.Quote))
		if err != nil {
			return err
		}
		alter(q)
		_, err = keystore.VerifyQuote(key, nonce[:], q)
		return err
	}
	as := func(*keystore.Quote) {}
	if err := verifies(key, nonce, as); err != nil {
		return fmt.Errorf("the quote that admitted the replica: %w", err)
	}
	for what, err := range map[string]error{
		"with another PCR":              verifies(key, nonce, func(q *keystore.Quote) { q.PCRs[len(q.PCRs)-1].Digest[0] ^= 1 }),
		"with another reset count":      verifies(key, nonce, func(q *keystore.Quote) { q.Attest[len(q.Attest)/2] ^= 1 }),
		"with another time":             verifies(key, nonce, func(q *keystore.Quote) { q.Time.Attest[len(q.Time.Attest)-1] ^= 1 }),
		"with another signature":        verifies(key, nonce, func(q *keystore.Quote) { q.Signature[0] ^= 1 }),
		"for another round":             verifies(key, later, as),
		"as that of another machine":    verifies(others, nonce, as),
		"without an approval counter":   verifies(key, nonce, func(q *keystore.Quote) { q.Counter = keystore.Statement{} }),
		"with the time for its counter": verifies(key, nonce, func(q *keystore.Quote) { q.Counter = q.Time }),
	} {
		r.refused(err, "the quote that admitted it, "+what+", does not verify")
	}
	return nil
}
