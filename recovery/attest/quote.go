package attest

import (
	"errors"

	"github.com/reseal-bft/reseal/keystore"
)

// quoteReason names why a quote does not verify.
func quoteReason(err error) Reason {
	switch {
	case errors.Is(err, keystore.ErrOtherKey):
		return ReasonAttestationKey
	case errors.Is(err, keystore.ErrOtherNonce):
		return ReasonNonce
	}
	return ReasonQuote
}
