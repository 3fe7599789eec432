package governance

import (
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/internal/wire"
)

// Result is what the log answers to a system operation. Refusal is nil when it was accepted.
type Result struct{ Refusal *attest.Refusal }

// Encode returns the canonical encoding: the reason in one byte, then the sentence.
func (r Result) Encode() []byte {
	if r.Refusal == nil {
		return []byte{byte(attest.ReasonNone)}
	}
	return append([]byte{byte(r.Refusal.Reason)}, r.Refusal.Sentence...)
}

// ParseResult reads what [Result.Encode] writes.
func ParseResult(b []byte) (Result, error) {
	switch {
	case len(b) == 0 || len(b) > 1+attest.MaxSentence || attest.Reason(b[0]) >= attest.NumReasons:
		return Result{}, wire.ErrMalformed
	case attest.Reason(b[0]) == attest.ReasonNone && len(b) == 1:
		return Result{}, nil
	case attest.Reason(b[0]) == attest.ReasonNone:
		return Result{}, wire.ErrMalformed
	}
	return Result{&attest.Refusal{Reason: attest.Reason(b[0]), Sentence: string(b[1:])}}, nil
}
