package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/tpm2tools"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// methodEvidence is what a replica answers with the last accepted evidence of a member.
const methodEvidence = "reseal/evidence"

// Evidence asks for the last evidence of a replica that the log accepted: that which f + 1 replicas
// tell alike.
func (m *Members) Evidence(ctx context.Context, id bft.ReplicaID) (*attest.Evidence, error) {
	if id < 1 || int(id) > len(m.conns) {
		return nil, fmt.Errorf("replica %d is not in the genesis, which has members 1 to %d", id, len(m.conns))
	}
	answers := make([][]byte, len(m.conns))
	var asked sync.WaitGroup
	for i, conn := range m.conns {
		asked.Go(func() {
			if answer, err := conn.Call(ctx, methodEvidence, binary.BigEndian.AppendUint16(nil, uint16(id))); err == nil {
				answers[i] = append([]byte{1}, answer...)
			}
		})
	}
	asked.Wait()
	told := map[string]int{}
	for _, answer := range answers {
		if len(answer) == 0 {
			continue
		}
		if told[string(answer)]++; told[string(answer)] != m.genesis.F+1 {
			continue
		}
		if len(answer) == 1 {
			return nil, fmt.Errorf("replica %d has not recovered yet: the log holds no evidence of it", id)
		}
		return attest.ParseEvidence(answer[1:])
	}
	return nil, ErrNoAgreement
}

// ExportEvidence writes evidence to a directory that does not exist yet, for auditors: the evidence
// as the log has it, what it is about, and the quote in the files of tpm2-tools, with the command
// that verifies it.
func ExportEvidence(dir string, genesis *governance.Genesis, e *attest.Evidence) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("%w: choose a new directory", err)
	}
	raw, err := e.Encode()
	if err != nil {
		return err
	}
	certificate, cluster := e.Certificate, genesis.ClusterID()
	about, err := json.MarshalIndent(map[string]any{
		"cluster": fmt.Sprintf("%x", cluster[:]), "replica": e.Replica, "epoch": e.Epoch, "round": e.Round,
		"epoch_key": fmt.Sprintf("%x", e.EpochKey), "anchor_height": e.Anchor.Height, "anchor_time": e.Anchor.Time,
		"anchor_header":      fmt.Sprintf("%x", e.Anchor.AppendBinary(nil)),
		"anchor_statement":   fmt.Sprintf("%x", certificate.Statement.Bytes(cluster)),
		"anchor_certificate": fmt.Sprintf("%x", certificate.Signature),
	}, "", "  ")
	if err != nil {
		return err
	}
	readme := readmeHead(e)
	if len(e.Quote) > 0 {
		quote, err := keystore.ParseQuote(e.Quote)
		if err != nil {
			return err
		}
		nonce := attest.Nonce(cluster, e.Replica, e.Epoch, e.Round, certificate.Signature, e.EpochKey)
		if err := tpm2tools.WriteNew(filepath.Join(dir, nonceInput), attest.NonceInput(cluster, e.Replica, e.Epoch, e.Round, certificate.Signature, e.EpochKey)); err != nil {
			return err
		}
		command, err := tpm2tools.Write(dir, genesis.Members[e.Replica-1].AttestationKey, nonce[:], quote)
		if err != nil {
			return err
		}
		readme += nonceExplained + "The TPM's quote verifies, in this directory, with\n\n    " + command + "\n\n" + tpm2tools.Explained
	} else {
		readme += "It holds no quote: this cluster attests nothing.\n"
	}
	for name, data := range map[string][]byte{"evidence": raw, "about.json": append(about, '\n'), "README": []byte(readme)} {
		if err := tpm2tools.WriteNew(filepath.Join(dir, name), data); err != nil {
			return err
		}
	}
	return nil
}

// nonceInput is the file with what the nonce is the hash of.
const nonceInput = "nonce.input"

const nonceExplained = `That the quote is about this replica, block and epoch key, the nonce says, which is the hash of nonce.input:

    sha256sum nonce.input; cat nonce

nonce.input is "reseal/v1/quote-nonce\0" and then, of about.json: cluster, replica (2 bytes), epoch, round (8 bytes each),
length of the certificate (2 bytes), certificate (anchor_certificate), epoch_key; numbers are big-endian. The cluster is

    (printf 'reseal/v1/genesis\0'; jq -cj . genesis.json) | sha256sum

Nobody knew the certificate, a BLS signature of anchor_statement under the group public key, before the block was certified.

`

func readmeHead(e *attest.Evidence) string {
	return fmt.Sprintf(`Evidence of replica %d, accepted by the log in epoch %d, round %d.

evidence    as the log has it
about.json  what it is about: the block that it answers (anchor), with its certificate under the group public key

`, e.Replica, e.Epoch, e.Round)
}
