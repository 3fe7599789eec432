package boot

import (
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/reseal-bft/reseal/internal/files"
	"github.com/reseal-bft/reseal/keystore"
)

// PCR is the platform configuration register that binary and configuration are extended into. 14 is
// free for such uses: firmware and boot loader of PC clients measure into 0 to 9.
const PCR = 14

// Measurement is the hash of something that is about to be started or obeyed.
type Measurement struct {
	Path   string
	Digest [sha256.Size]byte
}

// Measure hashes the files in the order in which they are extended.
func Measure(paths ...string) ([]Measurement, error) {
	measurements := make([]Measurement, 0, len(paths))
	for _, path := range paths {
		digest, err := hashFile(path)
		if err != nil {
			return nil, fmt.Errorf("measuring: %w", err)
		}
		measurements = append(measurements, Measurement{Path: path, Digest: digest})
	}
	return measurements, nil
}

func hashFile(path string) (digest [sha256.Size]byte, err error) {
	file, err := files.Open(path)
	if err != nil {
		return digest, err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return digest, err
	}
	return [sha256.Size]byte(hash.Sum(nil)), nil
}

// Extender is the part of a TPM keystore that measuring needs.
type Extender interface {
	Extend(pcr int, digest [32]byte) error
}

// Extend folds the measurements into [PCR].
func Extend(tpm Extender, measurements []Measurement) error {
	for _, m := range measurements {
		if err := tpm.Extend(PCR, m.Digest); err != nil {
			return fmt.Errorf("extending PCR %d by %s: %w", PCR, m.Path, err)
		}
	}
	return nil
}

// Predict returns the values that PCRs will have after the measurements, from those that they have now.
func Predict(now []keystore.PCRValue, measurements []Measurement) []keystore.PCRValue {
	predicted := append([]keystore.PCRValue(nil), now...)
	for i := range predicted {
		if predicted[i].Index != PCR {
			continue
		}
		for _, m := range measurements {
			predicted[i].Digest = sha256.Sum256(append(predicted[i].Digest[:], m.Digest[:]...))
		}
	}
	return predicted
}
