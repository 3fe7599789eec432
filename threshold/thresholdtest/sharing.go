package thresholdtest

import (
	"crypto/rand"
	"fmt"

	"github.com/reseal-bft/reseal/threshold"
)

// Certified treats dealings, by dealer, as if a quorum of receivers had certified each of them.
// They are verified.
func Certified(dealings map[int]*threshold.Dealing) ([]*threshold.CertifiedDealing, error) {
	var out []*threshold.CertifiedDealing
	for dealer, d := range dealings {
		c := d.Commitment()
		certified, err := c.Certify(threshold.Certification{
			Dealer: dealer, Context: c.Context(), Verify: func(message, certificate []byte) error { return nil },
		})
		if err != nil {
			return nil, err
		}
		out = append(out, certified)
	}
	return out, nil
}

// Sharing makes a sharing, by F+1 dealers, with the shares of all its N receivers.
func Sharing(p threshold.Params) (*threshold.Sharing, []*threshold.Share, error) {
	dealings := map[int]*threshold.Dealing{}
	for dealer := 1; dealer <= p.F+1; dealer++ {
		d, err := threshold.Deal(rand.Reader, p, fmt.Appendf(nil, "for a test, dealer %d", dealer))
		if err != nil {
			return nil, nil, err
		}
		dealings[dealer] = d
	}
	certified, err := Certified(dealings)
	if err != nil {
		return nil, nil, err
	}
	transition, err := threshold.KeyGeneration(certified...)
	if err != nil {
		return nil, nil, err
	}
	shares, err := Shares(transition, p.N, dealings)
	return transition.Sharing(), shares, err
}

// Shares gives every one of n receivers its parts, and makes the shares of a transition.
func Shares(t *threshold.Transition, n int, dealings map[int]*threshold.Dealing) ([]*threshold.Share, error) {
	var shares []*threshold.Share
	for j := 1; j <= n; j++ {
		parts := map[int]*threshold.Part{}
		for dealer, d := range dealings {
			part, err := d.Part(j)
			if err != nil {
				return nil, err
			}
			parts[dealer] = part
		}
		share, err := t.Share(parts)
		if err != nil {
			return nil, err
		}
		shares = append(shares, share)
	}
	return shares, nil
}
