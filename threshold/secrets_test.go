package threshold

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSecretsDoNotPrint sends every secret type down every route that prints, and looks for the
// digits of the secret and for anything that is not the placeholder.
func TestSecretsDoNotPrint(t *testing.T) {
	g := generate(t, defaultParams, 2)
	dealing, err := Deal(rand.Reader, defaultParams, nil)
	require.NoError(t, err)
	part, err := dealing.Part(1)
	require.NoError(t, err)
	point, err := part.Point(2)
	require.NoError(t, err)
	digits := hex.EncodeToString(g.shares[0].SecretBytes()[2:])[:12]

	for _, secret := range []any{g.shares[0], dealing, part, point, &point} {
		var printed []string
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			printed = append(printed, fmt.Sprintf(verb, secret))
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("m", "secret", secret)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "secret", secret)
		require.Equal(t, 2, strings.Count(log.String(), redactedText))
		encoded, err := json.Marshal(secret)
		require.NoError(t, err)
		require.Equal(t, `"`+redactedText+`"`, string(encoded))
		for _, p := range printed {
			require.Equal(t, redactedText, p)
		}
		require.NotContains(t, log.String(), digits)
		within := fmt.Sprintf("%+v", struct{ Inner any }{secret})
		require.Equal(t, "{Inner:"+redactedText+"}", within)
	}

	// fmt calls no methods on unexported fields: there it is the pointers that keep secrets.
	hidden := fmt.Sprintf("%+v", struct {
		point  Point
		points []Point
		part   *Part
		share  *Share
	}{point, []Point{point}, part, g.shares[0]})
	for _, limb := range point.value {
		require.NotContains(t, hidden, fmt.Sprint(limb))
		require.NotContains(t, hidden, fmt.Sprintf("%x", limb))
	}
}

func TestWipedSecretsDoNothing(t *testing.T) {
	g := generate(t, defaultParams, 2)
	share := g.shares[0]
	share.Wipe()
	require.True(t, share.secret.IsZero())
	require.Nil(t, share.SecretBytes())
	require.ErrorIs(t, g.sharing.VerifyPartial([]byte("m"), share.Sign([]byte("m"))), ErrInvalidSignature)
	require.ErrorIs(t, g.sharing.CheckShare(share), ErrWiped)
	_, err := Redeal(rand.Reader, defaultParams, nil, share)
	require.ErrorIs(t, err, ErrWiped)

	dealing, err := Deal(rand.Reader, defaultParams, nil)
	require.NoError(t, err)
	coefficients := dealing.coefficients
	part, err := dealing.Part(1)
	require.NoError(t, err)
	row := part.row
	dealing.Wipe()
	_, err = dealing.Part(1)
	require.ErrorIs(t, err, ErrWiped)
	for i := range coefficients {
		require.True(t, coefficients[i].IsZero())
	}
	part.Wipe()
	require.True(t, row[0].IsZero())
	require.Nil(t, part.SecretBytes())
	_, err = part.Point(2)
	require.ErrorIs(t, err, ErrWiped)
	require.ErrorIs(t, dealing.Commitment().VerifyPart(part), ErrWiped)
}

// TestHashForgetsItsInput looks into SHA-256's buffer, which has the end of what was hashed: of a
// part, say.
func TestHashForgetsItsInput(t *testing.T) {
	for _, n := range []int{1, 31, 63, 64, 65, 127, 200} {
		h := sha256.New()
		h.Write(bytes.Repeat([]byte{0xa5}, n))
		h.Sum(nil)
		buffer := reflect.ValueOf(h).Elem().FieldByName("x")
		require.Equal(t, sha256.BlockSize, buffer.Len(), "look where this version of Go keeps its input")
		wipeHash(h)
		for i := range buffer.Len() {
			require.Zero(t, buffer.Index(i).Uint(), "byte %d after %d bytes", i, n)
		}
		clean := sha256.Sum256(nil)
		require.Equal(t, clean[:], h.Sum(nil))
	}
}

// TestShareIsSafeForConcurrentUse is for the race detector.
func TestShareIsSafeForConcurrentUse(t *testing.T) {
	g := generate(t, defaultParams, 2)
	msg := []byte("m")
	done := make(chan error)
	for range 4 {
		go func() {
			for i := 1; i <= 6; i++ {
				if err := g.sharing.VerifyPartial(msg, g.shares[i-1].Sign(msg)); err != nil {
					done <- err
					return
				}
			}
			_, _, err := g.sharing.Combine(msg, g.sign(msg, 1, 2, 3, 4))
			done <- err
		}()
	}
	for range 4 {
		require.NoError(t, <-done)
	}
}
