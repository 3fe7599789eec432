package attest

import "fmt"

// Reason says in one word why an operation was refused, for programs. The numbers are part of the
// replicated state.
type Reason uint8

// The reasons. Those from [ReasonNotDue] to [ReasonFirmware] are about evidence.
const (
	ReasonNone           Reason = iota
	ReasonMalformed             // not the encoding of an operation
	ReasonPhase                 // not expected in this phase of the epoch
	ReasonRound                 // made for another epoch or round
	ReasonUnknownReplica        // no such member
	ReasonCertificate           // a certificate does not verify
	ReasonNotDue                // the replica is not due for recovery
	ReasonIdentity              // the evidence is not signed by the identity key
	ReasonSuperseded            // evidence of the same or a later anchor was judged already
	ReasonAnchor                // the anchor's header and certificate do not belong together
	ReasonStaleAnchor           // the anchor is from before the round
	ReasonKeyReused             // the epoch key is not fresh
	ReasonNoQuote               // a quote is required
	ReasonQuote                 // the quote does not parse or verify
	ReasonAttestationKey        // the quote is not signed by the registered attestation key
	ReasonNonce                 // the quote answers another nonce
	ReasonPCR                   // a PCR holds a value that is not approved
	ReasonNoReboot              // the machine was not reset since it became due
	ReasonResetCountFell        // the TPM was cleared or replaced
	ReasonUnclaimed             // the quote was made before the boot was claimed
	ReasonFirmware              // the TPM's firmware is older than the approved state asks for
	ReasonDealer                // the dealer holds no share
	ReasonSuperfluous           // already known, or no longer needed
	ReasonSequence              // an order out of sequence
	ReasonSignatures            // an order without the operators' quorum
	ReasonOrder                 // an order that cannot be carried out
	ReasonAccusation            // evidence of equivocation that does not hold
	// NumReasons is the number of reasons.
	NumReasons
)

var reasonNames = [NumReasons]string{
	"none", "malformed", "phase", "round", "unknown replica", "certificate", "not due", "identity signature", "superseded", "anchor",
	"stale anchor", "epoch key reused", "no quote", "quote", "attestation key", "nonce", "pcr", "no reboot", "reset count fell",
	"unclaimed", "firmware", "dealer", "superfluous", "sequence", "signatures", "order", "accusation",
}

// String returns the reason's name.
func (r Reason) String() string {
	if r >= NumReasons {
		return "invalid"
	}
	return reasonNames[r]
}

// MarshalText writes the reason's name.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// HeldAgainst says whether a refusal speaks against the replica itself: its own TPM or signature
// shows what is wrong, in answer to this round.
func (r Reason) HeldAgainst() bool { return r >= ReasonKeyReused && r <= ReasonFirmware }

// Refusal says why an operation was refused: a reason for programs and a short sentence for people.
// It is deterministic: every replica refuses with the same words.
type Refusal struct {
	Reason   Reason `json:"reason"`
	Sentence string `json:"sentence"`
}

// Error returns the sentence.
func (r *Refusal) Error() string { return r.Sentence }

// MaxSentence bounds the sentence of a refusal, in bytes.
const MaxSentence = 512

// Refuse makes a refusal; the sentence is cut at [MaxSentence].
func Refuse(reason Reason, format string, args ...any) *Refusal {
	s := fmt.Sprintf(format, args...)
	return &Refusal{Reason: reason, Sentence: s[:min(len(s), MaxSentence)]}
}
