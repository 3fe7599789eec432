package trace

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// fill makes a value in which nothing is zero but what chance leaves so.
func fill(rng *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(rng.IntN(2) == 1)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(rng.Uint64()))
	case reflect.Uint8, reflect.Uint16, reflect.Uint64:
		v.SetUint(rng.Uint64() >> (64 - v.Type().Bits()))
	case reflect.String:
		v.SetString(string(rune('a' + rng.IntN(26))))
	case reflect.Struct:
		for i := range v.NumField() {
			fill(rng, v.Field(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(rng, v.Index(i))
		}
	case reflect.Slice:
		if n := rng.IntN(4); n > 0 { // 0: nil
			v.Set(reflect.MakeSlice(v.Type(), n-1, n-1))
		}
		for i := range v.Len() {
			fill(rng, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(rng, key)
		fill(rng, value)
		v.SetMapIndex(key, value)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(rng, v.Elem())
	case reflect.Interface:
		var fit []reflect.Type
		for _, t := range concrete {
			if t.AssignableTo(v.Type()) {
				fit = append(fit, t)
			}
		}
		x := reflect.New(fit[rng.IntN(len(fit))]).Elem()
		fill(rng, x)
		v.Set(x)
	default:
		panic(v.Type().String())
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var x, y record
		fill(rng, reflect.ValueOf(&x).Elem())
		b := appendValue(nil, reflect.ValueOf(x))
		r := &reader{b: b}
		r.value(reflect.ValueOf(&y).Elem())
		require.False(t, r.failed)
		require.Empty(t, r.b)
		require.Equal(t, x, y)
	}
}

func TestEveryEventEffectAndMessageHasAPlace(t *testing.T) {
	known := map[string]bool{}
	for _, c := range concrete {
		if c.Kind() == reflect.Pointer {
			c = c.Elem()
		}
		known[c.Name()] = true
	}
	is := regexp.MustCompile(`(?m)^func \(\*?(\w+)\) (?:event|effect|message)\(\)`)
	found := 0
	for _, file := range []string{"effects.go", "types.go"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "bft", file))
		require.NoError(t, err)
		for _, match := range is.FindAllStringSubmatch(string(text), -1) {
			require.True(t, known[match[1]], "bft.%s", match[1])
			found++
		}
	}
	require.Equal(t, len(concrete)-1, found, "all but the words of a refusal")
}

func FuzzWhatIsDamagedIsNotRead(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		var x record
		fill(rng, reflect.ValueOf(&x).Elem())
		f.Add(appendValue(nil, reflect.ValueOf(x)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var x record
		(&reader{b: b}).value(reflect.ValueOf(&x).Elem())
	})
}

// scene is replica 2 of 4 in epoch 3, whose leader, replica 1, sends it a block of a time by its
// own clock.
type scene struct {
	config bft.Config
	block  *bft.Block
	now    bft.Now
}

func newScene(ahead time.Duration) *scene {
	base := bft.Base{Height: 7, Digest: bft.Digest{7}, Time: 1000, Root: bft.Digest{8}}
	s := &scene{now: bft.Now{Mono: 5, Wall: 2000}, config: bft.Config{
		Epoch: 3, Size: bft.Size{F: 1}, Self: 2, Leaders: []bft.ReplicaID{1, 2, 3, 4}, Window: 4, Voter: true, Base: base,
		Timeouts: bft.Timeouts{View: time.Second, ViewMax: time.Minute, Finalize: time.Millisecond, Idle: time.Millisecond, Resend: time.Second, Ahead: time.Second},
	}}
	payload := []byte("operations")
	s.block = &bft.Block{Payload: payload, Signature: make([]byte, bft.SignatureSize), Header: bft.Header{
		Epoch: 3, View: 1, Height: 8, Proposer: s.config.LeaderOf(1), Parent: base.Digest, Time: 2000 + ahead.Milliseconds(), Payload: bft.PayloadDigest(payload),
		StateHeight: base.Height, StateRoot: base.Root,
	}}
	return s
}

// record has the replica play the scene, and returns the directory of its traces and how many votes
// it asked to have signed.
func (s *scene) record(t *testing.T) (dir string, votes int) {
	dir = t.TempDir()
	r, err := NewRecorder(dir, func(err error) { require.NoError(t, err) })
	require.NoError(t, err)
	core, err := bft.New(s.config, bft.Restored{})
	require.NoError(t, err)
	observe := r.Observe(s.config, bft.Restored{})
	observe(s.now, nil, core.Start(s.now))
	step := func(event bft.Event) (sign []bft.Vote) {
		effects := core.Step(s.now, event)
		observe(s.now, event, effects)
		for _, e := range effects {
			if e, ok := e.(bft.Sign); ok {
				sign = append(sign, e.Vote)
			}
		}
		return sign
	}
	for _, vote := range step(bft.Receive{From: 1, Message: s.block}) {
		votes++
		vote.Partial = []byte("a partial signature")
		step(bft.Signed{Vote: vote})
	}
	require.NoError(t, r.Close())
	return dir, votes
}

func TestWhatACorrectReplicaDoesIsJustified(t *testing.T) {
	for _, ahead := range []time.Duration{0, time.Hour} {
		dir, votes := newScene(ahead).record(t)
		require.Equal(t, ahead == 0, votes == 1)
		var v Verdict
		require.NoError(t, v.JudgeAll(dir))
		require.Empty(t, v.Faults)
		require.Equal(t, 1, v.Lives)
		require.Equal(t, 1, v.Cores)
		require.Equal(t, 2+votes, v.Steps)
	}
}

func TestATraceHoldsNoPayloadAndNoPartialSignature(t *testing.T) {
	dir, votes := newScene(0).record(t)
	require.Equal(t, 1, votes)
	b := only(t, dir)
	require.NotContains(t, string(b), "operations")
	require.NotContains(t, string(b), "a partial signature")
}

// only returns the one file of a directory.
func only(t *testing.T, dir string) []byte {
	files, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	require.NoError(t, err)
	require.Len(t, files, 1)
	b, err := os.ReadFile(files[0])
	require.NoError(t, err)
	return b
}

// TestAnyPrefixIsJudged cuts a trace where a process may have been killed.
func TestAnyPrefixIsJudged(t *testing.T) {
	dir, _ := newScene(0).record(t)
	b := only(t, dir)
	steps := 0
	for n := range b {
		var v Verdict
		require.NoError(t, v.judge(bytes.NewReader(b[:n])), "%d bytes", n)
		require.GreaterOrEqual(t, v.Steps, steps)
		steps = v.Steps
	}
	require.Equal(t, 2, steps)
	damaged := bytes.Clone(b)
	damaged[4] = 7 // neither nil nor there
	var v Verdict
	require.ErrorIs(t, v.judge(bytes.NewReader(damaged)), errDamaged)
}

func TestARecorderThatFailsSaysSoOnce(t *testing.T) {
	said := 0
	r, err := NewRecorder(t.TempDir(), func(error) { said++ })
	require.NoError(t, err)
	require.NoError(t, r.file.Close()) // the disk is gone
	observe := r.Observe(bft.Config{}, bft.Restored{})
	observe(bft.Now{}, nil, nil)
	observe(bft.Now{}, bft.Signed{Err: errors.New("the key")}, nil)
	require.Equal(t, 1, said)
}
