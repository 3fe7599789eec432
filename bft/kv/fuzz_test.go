package kv

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever a replica answers to a client, as the result of an operation or to a question: no proof
// shows of a state what is not so.
func FuzzAnswer(f *testing.F) {
	store := filled(f, 50)
	root := store.State().Root()
	for _, key := range []string{"key 7", "key 49", "none"} {
		answer, proof, err := store.State().Query([]byte(key))
		require.NoError(f, err)
		f.Add([]byte(key), answer, proof)
	}
	f.Add([]byte{}, []byte{byte(NotFound)}, []byte{})
	f.Fuzz(func(t *testing.T, key, answer, proof []byte) {
		_, _ = ParseResult(answer)
		value, found, err := VerifyQuery(root, key, answer, proof)
		if err != nil {
			return
		}
		stored, present, err := store.State().(State).Get(key)
		require.NoError(t, err)
		require.Equal(t, present, found)
		require.True(t, !present || bytes.Equal(stored, value))
	})
}

// A snapshot that is no good leaves the content as it was; what is restored has the root of what
// writes the same snapshot.
func FuzzRestore(f *testing.F) {
	for _, n := range []int{1, 20} {
		var snapshot bytes.Buffer
		_, err := filled(f, n).State().WriteTo(&snapshot)
		require.NoError(f, err)
		f.Add(snapshot.Bytes())
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		store := New()
		before := store.State().Root()
		r := bytes.NewReader(data)
		if store.Restore(r) != nil {
			require.Equal(t, before, store.State().Root())
			return
		}
		var again bytes.Buffer
		_, err := store.State().WriteTo(&again)
		require.NoError(t, err)
		require.Equal(t, data[:len(data)-r.Len()], again.Bytes())
	})
}
