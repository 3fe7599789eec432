package boot

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/keystore"
)

func write(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestMeasureHashesFilesInOrder(t *testing.T) {
	binary, config := write(t, "abc"), write(t, "")
	measurements, err := Measure(binary, config)
	require.NoError(t, err)
	require.Equal(t, binary, measurements[0].Path)
	require.Equal(t, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", hex.EncodeToString(measurements[0].Digest[:]))
	require.Equal(t, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", hex.EncodeToString(measurements[1].Digest[:]))

	_, err = Measure(binary, "/nonexistent/config.json")
	require.ErrorContains(t, err, "/nonexistent/config.json")
	_, err = Measure(t.TempDir())
	require.Error(t, err)
}

// register is a PCR as the TPM specification describes it, Part 1, section 17.2: the extension
// hashes old value and digest.
type register struct {
	value [32]byte
	fail  error
}

func (r *register) Extend(pcr int, digest [32]byte) error {
	if pcr != PCR || r.fail != nil {
		return errors.Join(r.fail, errors.New("refused"))
	}
	hash := sha256.New()
	hash.Write(r.value[:])
	hash.Write(digest[:])
	copy(r.value[:], hash.Sum(nil))
	return nil
}

func TestPredictIsWhatExtendDoes(t *testing.T) {
	measurements, err := Measure(write(t, "binary"), write(t, "configuration"))
	require.NoError(t, err)
	now := []keystore.PCRValue{{Index: 7, Digest: [32]byte{7}}, {Index: PCR, Digest: [32]byte{14}}}
	predicted := Predict(now, measurements)

	r := register{value: [32]byte{14}}
	require.NoError(t, Extend(&r, measurements))
	require.Equal(t, []keystore.PCRValue{{Index: 7, Digest: [32]byte{7}}, {Index: PCR, Digest: r.value}}, predicted)
	require.Equal(t, [32]byte{14}, now[1].Digest, "the values now are not touched")

	r.fail = keystore.ErrUnavailable
	require.ErrorIs(t, Extend(&r, measurements), keystore.ErrUnavailable)
}
