package cluster

import (
	"bytes"
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
	certificate := e.Certificate
	about, err := json.MarshalIndent(map[string]any{
		"cluster": fmt.Sprintf("%v", genesis.ClusterID()), "replica": e.Replica, "epoch": e.Epoch, "round": e.Round,
		"epoch_key": fmt.Sprintf("%x", e.EpochKey), "anchor_height": e.Anchor.Height, "anchor_time": e.Anchor.Time,
		"anchor_header":      fmt.Sprintf("%x", e.Anchor.AppendBinary(nil)),
		"anchor_statement":   fmt.Sprintf("%x", certificate.Statement.Bytes(genesis.ClusterID())),
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
		nonce := attest.Nonce(genesis.ClusterID(), e.Replica, e.Epoch, e.Round, e.Certificate.Signature, e.EpochKey)
		command, err := tpm2tools.Write(dir, genesis.Members[e.Replica-1].AttestationKey, nonce[:], quote)
		if err != nil {
			return err
		}
		readme += "The TPM's quote verifies, in this directory, with\n\n    " + command + "\n"
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

func readmeHead(e *attest.Evidence) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, `Evidence of replica %d, accepted by the log in epoch %d, round %d.

evidence    as the log has it
about.json  what it is about: the block that it answers (anchor), with its certificate under the group public key
nonce       SHA-256 of "reseal/v1/quote-nonce\0", cluster, replica (2 bytes), epoch, round (8 bytes each), length of the
            certificate (2 bytes), certificate, epoch key; ak.pem is the attestation key that the genesis names

`, e.Replica, e.Epoch, e.Round)
	return b.String()
}
