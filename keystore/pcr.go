package keystore

import (
	"crypto/sha256"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// NumPCRs is the number of PCRs of a bank.
const NumPCRs = 24

// Selection is a set of PCRs of the SHA-256 bank: bit i stands for PCR i.
type Selection uint32

// Select returns the set of the given PCRs.
func Select(pcrs ...int) (Selection, error) {
	var s Selection
	for _, p := range pcrs {
		if p < 0 || p >= NumPCRs {
			return 0, fmt.Errorf("there is no PCR %d: choose among 0 to %d", p, NumPCRs-1)
		}
		s |= 1 << p
	}
	return s, nil
}

// Validate reports a selection that is empty or names a PCR that is not there.
func (s Selection) Validate() error {
	if s == 0 || s >= 1<<NumPCRs {
		return fmt.Errorf("the PCR selection %#x is not a set of PCRs 0 to %d", uint32(s), NumPCRs-1)
	}
	return nil
}

// Resettable are the PCRs that can be set back without a reset of the machine: 16 and 23 by everybody
// (debug and application), 17 to 22 by a dynamic launch, which alone extends them. Nothing is to be
// bound to them: a cap there does not last, or cannot be made.
const Resettable Selection = 0xff << 16

// Highest returns the PCR that Claim extends.
func (s Selection) Highest() int { return bits.Len32(uint32(s)) - 1 }

// Has reports whether the set holds a PCR.
func (s Selection) Has(pcr int) bool { return pcr >= 0 && pcr < NumPCRs && s&(1<<pcr) != 0 }

// Indexes lists the PCRs in ascending order.
func (s Selection) Indexes() []int {
	out := make([]int, 0, bits.OnesCount32(uint32(s)))
	for i := range NumPCRs {
		if s.Has(i) {
			out = append(out, i)
		}
	}
	return out
}

// String writes the set as "0,2,4,7,14".
func (s Selection) String() string {
	var parts []string
	for _, i := range s.Indexes() {
		parts = append(parts, strconv.Itoa(i))
	}
	return strings.Join(parts, ",")
}

// MarshalText writes the set as String does.
func (s Selection) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (s *Selection) UnmarshalText(text []byte) error {
	var pcrs []int
	for part := range strings.SplitSeq(string(text), ",") {
		p, err := strconv.Atoi(part)
		if err != nil {
			return fmt.Errorf("PCR selection %q: write it as 0,2,4,7", text)
		}
		pcrs = append(pcrs, p)
	}
	set, err := Select(pcrs...)
	if err == nil {
		*s = set
	}
	return err
}

// bitmap returns the three bytes by which a TPM names the set.
func (s Selection) bitmap() [3]byte { return [3]byte{byte(s), byte(s >> 8), byte(s >> 16)} }

// PCRValue is the content of one PCR of the SHA-256 bank.
type PCRValue struct {
	Index  int
	Digest [sha256.Size]byte
}

// SelectionOf returns the set of PCRs in values. They must ascend.
func SelectionOf(values []PCRValue) (Selection, error) {
	var s Selection
	last := -1
	for _, v := range values {
		if v.Index <= last || v.Index >= NumPCRs {
			return 0, fmt.Errorf("PCR %d is out of order or out of range", v.Index)
		}
		s |= 1 << v.Index
		last = v.Index
	}
	return s, s.Validate()
}

// PCRDigest returns the digest over PCRs that policies and quotes carry: the
// SHA-256 of their contents in ascending order.
func PCRDigest(values []PCRValue) [sha256.Size]byte {
	h := sha256.New()
	for _, v := range values {
		h.Write(v.Digest[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// PredictPCR returns what a PCR holds after measurements were extended into it,
// in order, starting from zero.
func PredictPCR(measurements ...[sha256.Size]byte) [sha256.Size]byte {
	var pcr [sha256.Size]byte
	for _, m := range measurements {
		pcr = sha256.Sum256(append(pcr[:], m[:]...))
	}
	return pcr
}

// CapEvent is what Claim extends into the highest PCR of the selection: no boot
// component measures it.
var CapEvent = sha256.Sum256([]byte("reseal boot claimed v1"))

// Capped returns what PCRs hold after Claim, from what they held before: the
// highest of the selection was extended once more. Operators approve the values
// before it, as they predict them; a quote shows the values after it, and who
// verifies one compares with these.
func Capped(values []PCRValue) []PCRValue {
	capped := slices.Clone(values)
	if n := len(capped); n > 0 {
		last := &capped[n-1]
		last.Digest = sha256.Sum256(append(last.Digest[:], CapEvent[:]...))
	}
	return capped
}
