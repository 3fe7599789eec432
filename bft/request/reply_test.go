package request

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/merkle"
)

// stubKey stands for the group key: its signatures are Ed25519 ones.
type stubKey ed25519.PublicKey

func (k stubKey) Verify(message, signature []byte) error {
	if !ed25519.Verify(ed25519.PublicKey(k), message, signature) {
		return errors.New("bad signature")
	}
	return nil
}

var groupKey = stubKey(testKey(99).Public().(ed25519.PublicKey))

// certify makes the header bind a state and signs it as the group.
func certify(height bft.Height, root bft.Digest) (bft.Header, bft.Certificate) {
	h := bft.Header{Epoch: 2, View: 7, Height: height + 2, Proposer: 3, Time: 1234567, StateHeight: height, StateRoot: root}
	c := bft.Certificate{Statement: bft.Statement{Epoch: 2, View: 7, Kind: bft.Notarize, Block: h.Digest()}}
	c.Signature = ed25519.Sign(testKey(99), c.Statement.Bytes(cluster))
	return h, c
}

var client = testKey(1).Public().(ed25519.PublicKey)

func goodReply() *Reply {
	results := [][]byte{[]byte("one"), {}, []byte("three")}
	record := Record{Sequence: 130, Height: 40, Results: ResultsDigest(results)}
	sessions := merkle.Map{}.Update([]merkle.Change{
		{Key: SessionLeaf(client, 130), Value: record.MarshalBinary()},
		{Key: SessionLeaf(client, 131), Value: Record{Sequence: 67}.MarshalBinary()},
	})
	r := &Reply{
		Results: results, Record: record, Proof: sessions.Prove(SessionLeaf(client, 130)),
		AppRoot: bft.Digest{1}, SystemRoot: bft.Digest{2},
	}
	r.Header, r.Certificate = certify(41, StateRoot(41, r.AppRoot, sessions.Root(), r.SystemRoot))
	return r
}

func TestReplyVerifies(t *testing.T) {
	r := goodReply()
	require.NoError(t, r.Verify(cluster, groupKey, client, 130))
	data, err := r.MarshalBinary()
	require.NoError(t, err)
	parsed, err := ParseReply(data)
	require.NoError(t, err)
	require.Equal(t, r, parsed)
	require.NoError(t, parsed.Verify(cluster, groupKey, client, 130))
}

func TestReplyProvesNothingElse(t *testing.T) {
	for name, change := range map[string]func(*Reply){
		"results":           func(r *Reply) { r.Results[0] = []byte("won") },
		"results regrouped": func(r *Reply) { r.Results = [][]byte{[]byte("onethree")} },
		"record":            func(r *Reply) { r.Record.Height-- },
		"sequence":          func(r *Reply) { r.Record.Sequence++ },
		"future record":     func(r *Reply) { r.Record.Height = r.Header.StateHeight + 1 },
		"application root":  func(r *Reply) { r.AppRoot[0]++ },
		"system root":       func(r *Reply) { r.SystemRoot[0]++ },
		"header":            func(r *Reply) { r.Header.Time++ },
		"kind":              func(r *Reply) { r.Certificate.Kind = bft.Nullify },
		"view":              func(r *Reply) { r.Certificate.View++ },
		"block":             func(r *Reply) { r.Certificate.Block[0]++ },
		"signature":         func(r *Reply) { r.Certificate.Signature[5]++ },
		"no signature":      func(r *Reply) { r.Certificate.Signature = nil },
		"path":              func(r *Reply) { r.Proof.Siblings[0][0][0]++ },
		"no path":           func(r *Reply) { r.Proof = merkle.Proof{} },
		"long path":         func(r *Reply) { r.Proof.Siblings = make([][3]bft.Digest, 129) },
	} {
		r := goodReply()
		change(r)
		require.ErrorIs(t, r.Verify(cluster, groupKey, client, 130), errUnproven, name)
	}
	r := goodReply()
	require.ErrorIs(t, r.Verify(bft.ClusterID{9}, groupKey, client, 130), errUnproven)
	require.ErrorIs(t, r.Verify(cluster, groupKey, testKey(2).Public().(ed25519.PublicKey), 130), errUnproven)
	require.ErrorIs(t, r.Verify(cluster, groupKey, client, 130+Window), errUnproven)
	require.ErrorIs(t, r.Verify(cluster, groupKey, client, 130-Window), errUnproven, "a later request of the slot, which passed over this one")
}

// What correct replicas never sign is not believed of the group either.
func TestReplyThatTheGroupCannotHaveMade(t *testing.T) {
	sign := func(r *Reply) {
		r.Certificate.Signature = ed25519.Sign(testKey(99), r.Certificate.Statement.Bytes(cluster))
	}
	r := goodReply()
	r.Certificate.Kind = bft.Finalize
	sign(r)
	require.NoError(t, r.Verify(cluster, groupKey, client, 130), "a finalization will do")
	r.Certificate.Kind = bft.Nullify
	sign(r)
	require.ErrorIs(t, r.Verify(cluster, groupKey, client, 130), errUnproven, "a nullification of a block")

	r = goodReply()
	r.Record.Height = r.Header.StateHeight + 1
	sessions := merkle.Map{}.Update([]merkle.Change{{Key: SessionLeaf(client, 130), Value: r.Record.MarshalBinary()}})
	r.Proof = sessions.Prove(SessionLeaf(client, 130))
	r.Header, r.Certificate = certify(41, StateRoot(41, r.AppRoot, sessions.Root(), r.SystemRoot))
	require.ErrorIs(t, r.Verify(cluster, groupKey, client, 130), errUnproven, "a state with a record of what came after it")
}

func TestStateRootBindsEverything(t *testing.T) {
	seen := make(map[bft.Digest]bool)
	for _, root := range []bft.Digest{
		StateRoot(1, bft.Digest{1}, bft.Digest{2}, bft.Digest{3}), StateRoot(2, bft.Digest{1}, bft.Digest{2}, bft.Digest{3}),
		StateRoot(1, bft.Digest{2}, bft.Digest{2}, bft.Digest{3}), StateRoot(1, bft.Digest{1}, bft.Digest{1}, bft.Digest{3}),
		StateRoot(1, bft.Digest{1}, bft.Digest{2}, bft.Digest{2}), StateRoot(1<<40, bft.Digest{1}, bft.Digest{2}, bft.Digest{3}),
	} {
		require.False(t, seen[root])
		seen[root] = true
	}
}

// Who answers may be anybody: what he makes a client hold is bounded part by part.
func TestRepliesHaveLimits(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Reply)
		good   bool
	}{
		"the longest certificate": {func(r *Reply) { r.Certificate.Signature = make([]byte, bft.MaxCertificate) }, true},
		"a longer certificate":    {func(r *Reply) { r.Certificate.Signature = make([]byte, bft.MaxCertificate+1) }, false},
		"the largest result":      {func(r *Reply) { r.Results[1] = make([]byte, bft.MaxResult) }, true},
		"a larger result":         {func(r *Reply) { r.Results[1] = make([]byte, bft.MaxResult+1) }, false},
		"too much in all": {func(r *Reply) {
			r.Results = slices.Repeat([][]byte{make([]byte, bft.MaxResult)}, bft.MaxReply/bft.MaxResult+1)
		}, false},
	} {
		r := goodReply()
		c.change(r)
		data, err := r.MarshalBinary()
		require.NoError(t, err, name)
		_, err = ParseReply(data)
		require.Equal(t, c.good, err == nil, "%s: %v", name, err)
		_, err = ParseReply(append(data, 0))
		require.ErrorIs(t, err, ErrMalformed, name)
	}
	read := &ReadReply{Answer: make([]byte, bft.MaxReply)}
	read.Header, read.Certificate = certify(9, bft.Digest{})
	data, err := read.MarshalBinary()
	require.NoError(t, err)
	_, err = ParseReadReply(data)
	require.ErrorIs(t, err, ErrMalformed)
	read.Answer = nil
	data, err = read.MarshalBinary()
	require.NoError(t, err)
	_, err = ParseReadReply(append(data, 0))
	require.ErrorIs(t, err, ErrMalformed, "one form")
}

func TestReadReply(t *testing.T) {
	r := &ReadReply{
		Answer: []byte("answer"), Proof: []byte{},
		AppRoot: bft.Digest{1}, SessionsRoot: bft.Digest{2}, SystemRoot: bft.Digest{3},
	}
	r.Header, r.Certificate = certify(9, StateRoot(9, r.AppRoot, r.SessionsRoot, r.SystemRoot))
	require.NoError(t, r.Verify(cluster, groupKey))
	require.EqualValues(t, 1234567, r.Time().UnixMilli())

	data, err := r.MarshalBinary()
	require.NoError(t, err)
	parsed, err := ParseReadReply(data)
	require.NoError(t, err)
	require.Equal(t, r, parsed)

	parsed.AppRoot[9] ^= 1
	require.ErrorIs(t, parsed.Verify(cluster, groupKey), errUnproven)
}

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Record{Sequence: rapid.Uint64().Draw(t, "sequence"), Height: bft.Height(rapid.Uint64().Draw(t, "height"))}
		got, err := ParseRecord(r.MarshalBinary())
		require.NoError(t, err)
		require.Equal(t, r, got)
	})
	_, err := ParseRecord(make([]byte, 47))
	require.ErrorIs(t, err, ErrMalformed)
}

func TestSessionSlots(t *testing.T) {
	seen := map[bft.Digest]bool{}
	for sequence := range uint64(Window) {
		leaf := SessionLeaf(client, sequence)
		require.False(t, seen[leaf])
		seen[leaf] = true
		require.Equal(t, leaf, SessionLeaf(client, sequence+Window))
	}
}

func FuzzParseReply(f *testing.F) {
	good, err := goodReply().MarshalBinary()
	require.NoError(f, err)
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseReply(data)
		if err != nil {
			return
		}
		again, err := r.MarshalBinary()
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, again))
		if r.Verify(cluster, groupKey, client, 130) == nil {
			require.Equal(t, goodReply().Results, r.Results, "a forged reply verifies")
		}
	})
}

func FuzzParseReadReply(f *testing.F) {
	r := &ReadReply{Answer: []byte("answer"), Proof: []byte("proof")}
	r.Header, r.Certificate = certify(9, StateRoot(9, r.AppRoot, r.SessionsRoot, r.SystemRoot))
	data, err := r.MarshalBinary()
	require.NoError(f, err)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseReadReply(data)
		if err != nil {
			return
		}
		again, err := r.MarshalBinary()
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, again))
		if r.Verify(cluster, groupKey) == nil {
			require.Zero(t, r.AppRoot, "a forged reply verifies") // what the answer is to be proven under
		}
	})
}
