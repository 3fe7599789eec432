package recovery

import (
	"bytes"
	"errors"

	"github.com/reseal-bft/reseal/threshold"
)

// groupScheme verifies certificates under the group key.
type groupScheme struct{ key *threshold.PublicKey }

// Verify checks certificates one by one: the log holds few.
func (g groupScheme) Verify(messages, signatures [][]byte) []bool {
	out := make([]bool, len(messages))
	for i := range messages {
		out[i] = len(signatures[i]) == threshold.SignatureLen &&
			g.key.Verify(messages[i], threshold.Signature(signatures[i])) == nil
	}
	return out
}

// epochScheme verifies the certificates of the ledger's epoch: lists of signatures by epoch keys in epoch 0, then threshold signatures.
func (l *ledger) epochScheme() (Verifier, error) {
	if l.epoch == 0 {
		return newListScheme(l)
	}
	key, err := threshold.ParsePublicKey(l.groupKey)
	if err != nil {
		return nil, err
	}
	return groupScheme{key}, nil
}

// nextGroupKey is the public key of the sharing that the chosen dealings combine into. In epoch 0 it is the sum of the dealt public
// keys. Later it must be the key as it is: that the dealt secrets are shares of it was checked by the receivers who certified the dealings, and
// is checked here once more, since a wrong combination would lose the group key for good.
func (l *ledger) nextGroupKey() ([]byte, error) {
	var dealers []int
	var keys []*threshold.PublicKey
	for i := range l.round.dealings {
		d := &l.round.dealings[i]
		key, err := threshold.ParsePublicKey(d.PublicKey[:])
		if err != nil {
			return nil, err
		}
		dealers, keys = append(dealers, int(d.Dealer)), append(keys, key)
	}
	if l.epoch == 0 {
		sum, err := threshold.SumPublicKeys(keys...)
		if err != nil {
			return nil, err
		}
		return sum.Bytes(), nil
	}
	key, err := threshold.InterpolatePublicKey(dealers, keys)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(key.Bytes(), l.groupKey) {
		return nil, errors.New("the dealt secrets are not shares of the group key")
	}
	return key.Bytes(), nil
}
