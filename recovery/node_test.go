package recovery

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/store"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/device"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/recovery/handoff"
	"github.com/reseal-bft/reseal/threshold"
)

// nodes is a cluster of real nodes in this process: real connections, stores and (file) keystores.
type nodes struct {
	t         *testing.T
	dir       string
	genesis   *governance.Genesis
	operator  ed25519.PrivateKey
	keystores []keystore.Keystore
	running   []*Node
	client    ed25519.PrivateKey
	sequence  uint64
	// configure changes how a node is started; it may be nil.
	configure func(*NodeConfig)
}

func startNodes(t *testing.T, f, c int) *nodes {
	public, operator := epochKey(t)
	_, client := epochKey(t)
	g := &governance.Genesis{
		Name: "nodes", Created: time.Now().UTC().Truncate(time.Second), F: f, C: c,
		Operators: []ed25519.PublicKey{public}, OperatorQuorum: 1,
		RoundDeadline: governance.Duration(20 * time.Second), Window: 4,
		Timeouts: governance.Timeouts{
			View: governance.Duration(time.Second), ViewMax: governance.Duration(8 * time.Second), Finalize: governance.Duration(50 * time.Millisecond),
			Idle: governance.Duration(50 * time.Millisecond), Resend: governance.Duration(300 * time.Millisecond), Ahead: governance.Duration(10 * time.Second),
		},
	}
	n := &nodes{t: t, dir: t.TempDir(), genesis: g, operator: operator, client: client}
	addresses := freeAddresses(t, g.Size().N())
	for i := range g.Size().N() {
		ks, err := device.Init(t.Context(), "file:"+filepath.Join(n.dir, fmt.Sprint("keystore", i+1)),
			keystore.WithPassphrase(keystore.NewSecret([]byte("correct horse"))), keystore.WithWorkFactor(8))
		require.NoError(t, err)
		n.keystores = append(n.keystores, ks)
		key, err := handoff.SealGenesisKey(ks)
		require.NoError(t, err)
		der, err := x509.MarshalPKIXPublicKey(ks.Identity().Public())
		require.NoError(t, err)
		g.Members = append(g.Members, governance.GenesisMember{ID: bft.ReplicaID(i + 1), Address: addresses[i], Identity: der, EpochKey: key})
	}
	n.running = make([]*Node, len(g.Members))
	for i := range g.Members {
		n.start(i)
	}
	t.Cleanup(func() {
		for i := range n.running {
			n.stop(i)
		}
	})
	return n
}

// freeAddresses are different ones: each is held until all are found.
func freeAddresses(t *testing.T, count int) []string {
	var addresses []string
	for range count {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

func (n *nodes) start(i int) {
	log := slog.New(slog.NewTextHandler(n.t.Output(), nil)).With("replica", i+1)
	cfg := NodeConfig{
		Genesis: n.genesis, Self: bft.ReplicaID(i + 1), Dir: filepath.Join(n.dir, fmt.Sprint("store", i+1)),
		Keystore: n.keystores[i], Application: kv.New(), Log: log,
	}
	if n.configure != nil {
		n.configure(&cfg)
	}
	node, err := Start(context.Background(), cfg)
	require.NoError(n.t, err)
	n.running[i] = node
}

func (n *nodes) stop(i int) {
	if n.running[i] != nil {
		require.NoError(n.t, n.running[i].Close())
		require.NoError(n.t, n.running[i].Wait())
		n.running[i] = nil
	}
}

// awaitEpoch waits until a replica votes in an epoch.
func (n *nodes) awaitEpoch(i int, epoch bft.Epoch) {
	require.Eventually(n.t, func() bool {
		s := n.running[i].replica.Load().Status()
		return s.Epoch >= epoch && s.Voter
	}, time.Minute, 5*time.Millisecond, "replica %d and epoch %d", i+1, epoch)
}

func (n *nodes) groupKey(i int) *threshold.PublicKey {
	raw, err := hex.DecodeString(n.running[i].State().GroupKey)
	require.NoError(n.t, err)
	key, err := threshold.ParsePublicKey(raw)
	require.NoError(n.t, err)
	return key
}

// verifier verifies replies under a group key.
type verifier struct{ key *threshold.PublicKey }

func (v verifier) Verify(message, signature []byte) error {
	return v.key.Verify(message, threshold.Signature(signature))
}

func (n *nodes) submit(through int, key *threshold.PublicKey, space request.Space, operation []byte) []byte {
	n.sequence++
	req, err := request.New(n.genesis.ClusterID(), n.client, n.sequence, space, [][]byte{operation})
	require.NoError(n.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	reply, err := n.running[through].replica.Load().Submit(ctx, req)
	require.NoError(n.t, err)
	require.NoError(n.t, reply.Verify(n.genesis.ClusterID(), verifier{key}, n.client.Public().(ed25519.PublicKey), n.sequence))
	return reply.Results[0]
}

func (n *nodes) put(through int, key *threshold.PublicKey, name, value string) {
	operation, err := kv.Put([]byte(name), []byte(value))
	require.NoError(n.t, err)
	result, err := kv.ParseResult(n.submit(through, key, request.Application, operation))
	require.NoError(n.t, err)
	require.Equal(n.t, kv.OK, result.Status)
}

// order has the operator start a round in which the given replicas are due.
func (n *nodes) order(through int, key *threshold.PublicKey, due ...bft.ReplicaID) {
	o := &governance.Order{Sequence: n.running[through].State().OrderSequence + 1, Body: &governance.StartRound{Due: due}}
	require.NoError(n.t, o.Sign(n.genesis, n.operator))
	raw, err := governance.Encode(o)
	require.NoError(n.t, err)
	result, err := governance.ParseResult(n.submit(through, key, request.System, raw))
	require.NoError(n.t, err)
	require.Nil(n.t, result.Refusal)
}

func TestAClusterMakesItsKeyAndEveryReplicaIsRecovered(t *testing.T) {
	n := startNodes(t, 1, 1)
	for i := range n.running {
		n.awaitEpoch(i, 1)
	}
	key := n.groupKey(0)
	n.put(0, key, "written", "before")
	for i := range n.running {
		through := (i + 1) % len(n.running)
		n.order(through, key, bft.ReplicaID(i+1))
		old, err := n.keystores[i].Status()
		require.NoError(t, err)
		n.stop(i)
		n.put(through, key, fmt.Sprint("while ", i+1, " is away"), "yes")
		n.start(i)
		for j := range n.running {
			n.awaitEpoch(j, bft.Epoch(i+2))
		}
		require.True(t, key.Equal(n.groupKey(i)), "the group key stays the same")
		require.Eventually(t, func() bool {
			_, err := n.keystores[i].Unseal(old.Epoch)
			return errors.Is(err, keystore.ErrErased)
		}, time.Minute, time.Millisecond, "the old share cannot be unsealed once the new epoch has signed")
		n.put(i, key, "through the recovered", fmt.Sprint(i))
	}
	require.Equal(t, uint64(6), n.running[0].State().Counts.Recoveries)
}

func TestAReplicaThatMissedAHandoffCompletesItsShareFromTheOthers(t *testing.T) {
	n := startNodes(t, 1, 1)
	for i := range n.running {
		n.awaitEpoch(i, 1)
	}
	key := n.groupKey(0)
	n.stop(5)
	n.order(0, key, 1)
	n.stop(0)
	n.start(0)
	for i := range 5 {
		n.awaitEpoch(i, 2)
	}
	n.start(5)
	n.awaitEpoch(5, 2)
	n.put(5, key, "back", "again")
}

func TestAKeystoreOfAnotherMemberIsRefused(t *testing.T) {
	n := startNodes(t, 1, 0)
	_, err := Start(context.Background(), NodeConfig{
		Genesis: n.genesis, Self: 1, Dir: t.TempDir(), Keystore: n.keystores[1], Application: kv.New(),
	})
	require.ErrorContains(t, err, "another identity")
	_, err = Start(context.Background(), NodeConfig{
		Genesis: n.genesis, Self: 9, Dir: t.TempDir(), Keystore: n.keystores[1], Application: kv.New(),
	})
	require.ErrorContains(t, err, "not in the genesis")
}

// awaitState waits until a replica's state shows something.
func (n *nodes) awaitState(i int, shows func(*governance.View) bool) {
	require.Eventually(n.t, func() bool { return shows(n.running[i].State()) }, time.Minute, time.Millisecond)
}

func TestARestartInTheMiddleOfARecoveryDoesNotLoseTheAttestedKey(t *testing.T) {
	n := startNodes(t, 1, 1)
	for i := range n.running {
		n.awaitEpoch(i, 1)
	}
	key := n.groupKey(0)
	n.order(1, key, 1)
	n.stop(0)
	n.start(0)
	n.awaitState(1, func(v *governance.View) bool { return len(v.Attested) == 1 || v.Epoch == 2 })
	n.stop(0)
	n.start(0)
	for i := range n.running {
		n.awaitEpoch(i, 2)
	}
	n.put(0, key, "after", "both")
}

// Where no TPM proves a reboot, a process that was not started again after its replica became due
// attests nothing; also when it was started for a recovery before, in the same epoch, in which an
// intruder has been there since.
func TestASecondRecoveryInAnEpochAsksForASecondRestart(t *testing.T) {
	n := startNodes(t, 1, 2)
	for i := range n.running {
		n.awaitEpoch(i, 1)
	}
	key := n.groupKey(0)
	n.stop(7) // so that the round stays open
	n.order(1, key, 1, 8)
	n.stop(0)
	n.start(0)
	n.awaitState(1, func(v *governance.View) bool { return len(v.Attested) == 1 })
	n.awaitState(0, func(v *governance.View) bool { return len(v.Attested) == 1 })
	stolen := ed25519.PrivateKey(bytes.Clone(n.running[0].keeper.PrivateKey(n.running[1].State().Member(1).NextKey)))
	require.NotEmpty(t, stolen)

	n.order(1, key, 1, 8)
	n.awaitState(0, func(v *governance.View) bool { return v.Round == 3 && v.Member(1).Due })
	// It has all that it needs to attest: more blocks, whose certificates are anchors.
	for i := range 3 {
		n.put(1, key, "block", fmt.Sprint(i))
		height := n.running[1].replica.Load().Status().Height
		require.Eventually(t, func() bool { return n.running[0].replica.Load().Status().Height >= height }, time.Minute, time.Millisecond)
	}
	require.False(t, n.running[0].wasReset(n.running[0].State().Member(1)))
	require.Empty(t, n.running[1].State().Attested)

	n.stop(0)
	n.start(0)
	n.awaitState(1, func(v *governance.View) bool { return len(v.Attested) == 1 })
	require.NotEqual(t, stolen.Public(), n.running[1].State().Member(1).NextKey)
	n.start(7)
	for i := range n.running {
		n.awaitEpoch(i, 2)
	}
	n.put(0, key, "after", "both")
}

func TestAPowerCutInMidHandoffDelaysItOnly(t *testing.T) {
	n := startNodes(t, 1, 1)
	for i := range n.running {
		n.awaitEpoch(i, 1)
	}
	key := n.groupKey(0)
	n.put(0, key, "kept", "yes")
	n.order(1, key, 1)
	n.stop(0)
	n.start(0)
	n.awaitState(1, func(v *governance.View) bool { return v.Phase == governance.PhaseDealing || v.Epoch == 2 })
	for i := range n.running {
		n.stop(i)
	}
	for i := range n.running {
		n.start(i)
	}
	for i := range n.running {
		n.awaitEpoch(i, 2)
	}
	require.True(t, key.Equal(n.groupKey(3)))
	n.put(0, key, "after", "the power cut")
}

func epochKey(t *testing.T) (ed25519.PublicKey, ed25519.PrivateKey) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return public, private
}

// noted tells when a replica puts on another key.
type noted struct {
	Network
	worn func()
}

func (n noted) SetCertificate(c tls.Certificate) {
	n.worn()
	n.Network.SetCertificate(c)
}

// In its epoch a replica speaks under the key that all have for it, also after it has attested
// another: those who have not executed the block that says so may need its votes to get there.
func TestAReplicaIsHeardByAllWhileItRecovers(t *testing.T) {
	n := startNodes(t, 1, 1)
	for i := range n.running {
		n.awaitEpoch(i, 1)
	}
	key, old := n.groupKey(0), n.running[1].State().Member(1).EpochKey
	epochs := make(chan bft.Epoch, 100)
	var recovering atomic.Pointer[Node]
	n.configure = func(cfg *NodeConfig) {
		cfg.Network = func(tc transport.Config) (Network, error) {
			network, err := connect(tc)
			return noted{network, func() { epochs <- recovering.Load().State().Epoch }}, err
		}
	}
	n.order(1, key, 1)
	n.stop(0)
	n.start(0)
	recovering.Store(n.running[0])
	for i := range n.running {
		n.awaitEpoch(i, 2)
	}
	require.NotEqual(t, old, n.running[1].State().Member(1).EpochKey)
	require.EqualValues(t, 2, <-epochs, "the attested key is put on when its epoch has begun")
}

// admitsOldCredential says whether a replica takes a peer's credential of an epoch that is over,
// for a key that the log does not name.
func admitsOldCredential(t *testing.T) bool {
	n := startNodes(t, 1, 0)
	n.awaitEpoch(0, 1)
	node, member := n.running[0], n.running[0].state.Membership().Member(2)
	foreign, _ := epochKey(t)
	term := termOf(n.running[0].state.Membership())
	require.NoError(t, node.admit(transport.Sender{ID: 2, EpochKey: member.EpochKey}), "the log names its key")
	require.NoError(t, node.admit(transport.Sender{ID: 2, Term: term, EpochKey: foreign}), "the log may not have met its key")
	return node.admit(transport.Sender{ID: 2, Term: transport.Term{Epoch: term.Epoch - 1, Base: n.genesis.ClusterID()}, EpochKey: foreign}) == nil
}

func TestACredentialEndsWithItsEpoch(t *testing.T) { require.False(t, admitsOldCredential(t)) }

// admitsCredentialAhead says whether a replica takes credentials for epochs to come, when their
// owner has not vouched for the key, whatever others say; it must when the owner has.
func admitsCredentialAhead(t *testing.T) bool {
	n := startNodes(t, 1, 0)
	n.awaitEpoch(0, 1)
	node := n.running[0]
	foreign, _ := epochKey(t)
	term := termOf(node.state.Membership())
	ahead := transport.Sender{ID: 2, Term: transport.Term{Epoch: term.Epoch + 2}, EpochKey: foreign}
	admitted := node.admit(ahead) == nil
	other, _ := epochKey(t)
	for id := bft.ReplicaID(2); id <= 4; id++ {
		node.words.hear(id, word{term: ahead.Term, key: other})
		admitted = admitted || node.admit(ahead) == nil
	}
	node.words.hear(2, word{term: ahead.Term, key: foreign})
	require.NoError(t, node.admit(ahead), "this replica is behind")
	node.words.mu.Lock()
	w := node.words.said[2]
	w.at = w.at.Add(-vouchedFor)
	node.words.said[2] = w
	node.words.mu.Unlock()
	return admitted || node.admit(ahead) == nil
}

func TestACredentialForAnEpochThatHasNotBegunCountsNowhere(t *testing.T) {
	require.False(t, admitsCredentialAhead(t))
}

// Whoever had the use of a replica's identity key makes credentials for all epochs to come, for a
// key of his own. When those come, he is admitted to nothing; only with a credential that was made
// after the epoch began, for which the identity key is needed again.
func TestACredentialMadeAheadIsNotAdmittedInItsEpoch(t *testing.T) {
	n := startNodes(t, 1, 1)
	for i := range n.running {
		n.awaitEpoch(i, 1)
	}
	_, own := epochKey(t)
	make := func(term transport.Term) tls.Certificate {
		certificate, err := transport.Credential(n.keystores[0].Identity(), n.genesis.ClusterID(), 1, term, own)
		require.NoError(t, err)
		return certificate
	}
	base := n.running[0].state.Membership().Base.Digest
	var ahead []tls.Certificate
	for e := bft.Epoch(1); e < 5; e++ {
		for _, guess := range []bft.Digest{base, {}, n.genesis.ClusterID()} {
			ahead = append(ahead, make(transport.Term{Epoch: e, Base: guess}))
		}
	}
	key := n.groupKey(0)
	for e := bft.Epoch(2); e < 4; e++ {
		due := bft.ReplicaID(e) // not the intruder's: its key stays the one that the log names
		n.order(3, key, due)
		n.stop(int(due - 1))
		n.start(int(due - 1))
		for i := range n.running {
			n.awaitEpoch(i, e)
		}
		for i, c := range ahead {
			require.Error(t, n.knock(c), "credential %d in epoch %d", i, e)
		}
		require.NoError(t, n.knock(make(termOf(n.running[1].state.Membership()))), "the test can tell")
	}
}

// knock calls replica 2 as replica 1, under a certificate.
func (n *nodes) knock(certificate tls.Certificate) error {
	self := n.genesis.Members[0]
	t, err := transport.New(transport.Config{
		Cluster: n.genesis.ClusterID(), Self: self.ID, Listen: "127.0.0.1:0", Certificate: certificate, Handler: func(transport.Sender, []byte) {},
	})
	require.NoError(n.t, err)
	defer t.Close()
	identity, err := attest.ParseIdentity(n.genesis.Members[1].Identity)
	require.NoError(n.t, err)
	t.SetPeers([]transport.Peer{{ID: 2, Address: n.genesis.Members[1].Address, Identity: identity}})
	ctx, cancel := context.WithTimeout(n.t.Context(), time.Minute)
	defer cancel()
	_, err = t.CallUnder(ctx, certificate, 2, "reseal/recall", nil)
	return err
}

// stuck is an application that stands still in the first block with an operation, as a write does
// whose disk has failed.
type stuck struct {
	bft.Application
	entered, release chan struct{}
}

func (s stuck) Apply(height bft.Height, time int64, operations []bft.Operation, results *bft.Results) error {
	if len(operations) > 0 {
		s.entered <- struct{}{}
		<-s.release
	}
	return s.Application.Apply(height, time, operations, results)
}

// When the disk has failed, the database may hold whoever writes for ever. The owner hears of it
// all the same, with advice, and can end the process.
func TestAFailedDiskEndsTheNode(t *testing.T) {
	n := startNodes(t, 1, 1)
	for i := range n.running {
		n.awaitEpoch(i, 1)
	}
	key := n.groupKey(0)
	entered, release := make(chan struct{}, 1), make(chan struct{})
	n.configure = func(cfg *NodeConfig) { cfg.Application = stuck{cfg.Application, entered, release} }
	n.stop(5)
	n.start(5)
	n.put(0, key, "one", "more")
	<-entered
	n.running[5].diskFailed(store.ErrFailed)
	require.ErrorIs(t, n.running[5].Wait(), store.ErrFailed)
	require.NoError(t, n.running[5].Close(), "it does not wait for what hangs")
	close(release)
	<-n.running[5].done
	require.NoError(t, n.running[5].Close())
	n.running[5] = nil
}

// cut is a network from which a replica can be cut off: it neither hears nor calls anybody.
type cut struct {
	Network
	off *atomic.Bool
}

var errCut = errors.New("cut off")

// cutOff gives the replicas that start from now on a network from which they can be cut off: while
// what it returns is true.
func (n *nodes) cutOff() *atomic.Bool {
	off := new(atomic.Bool)
	n.configure = func(cfg *NodeConfig) {
		cfg.Network = func(tc transport.Config) (Network, error) {
			handle := tc.Handler
			tc.Handler = func(from transport.Sender, frame []byte) {
				if !off.Load() {
					handle(from, frame)
				}
			}
			network, err := connect(tc)
			return cut{network, off}, err
		}
	}
	return off
}

func (c cut) Call(ctx context.Context, to bft.ReplicaID, method string, request []byte) ([]byte, error) {
	if c.off.Load() {
		return nil, transport.Unreachable(errCut)
	}
	return c.Network.Call(ctx, to, method, request)
}

func (c cut) CallUnder(ctx context.Context, certificate tls.Certificate, to bft.ReplicaID, method string, request []byte) ([]byte, error) {
	if c.off.Load() {
		return nil, transport.Unreachable(errCut)
	}
	return c.Network.CallUnder(ctx, certificate, to, method, request)
}

func (c cut) CallVouched(ctx context.Context, to bft.ReplicaID, method string, request []byte) ([]byte, ed25519.PublicKey, error) {
	if c.off.Load() {
		return nil, nil, transport.Unreachable(errCut)
	}
	return c.Network.CallVouched(ctx, to, method, request)
}

// A round opens by block time, a process starts by its machine's clock: a replica whose clock is
// behind, or whose round was opened by a leader ahead of time, has rebooted all the same when its
// own log knew of the round before it started.
func TestAClockThatIsBehindMakesNoLapse(t *testing.T) {
	n := startNodes(t, 1, 1)
	for i := range n.running {
		n.awaitEpoch(i, 1)
	}
	n.order(1, n.groupKey(0), 6)
	require.Eventually(t, func() bool { return n.running[5].State().Member(6).Due }, time.Minute, 5*time.Millisecond)
	n.configure = func(cfg *NodeConfig) {
		cfg.Clock = func() time.Time { return time.Now().Add(-time.Hour) }
	}
	n.stop(5)
	n.start(5)
	n.awaitEpoch(5, 2)
	require.NotZero(t, n.running[5].State().Member(6).RecoveredEpoch)
}

// The key under which a replica speaks in its epoch counts no more in the next one when it has
// attested another. One that misses the end of the epoch has no key that the others take for its
// own, nor knows that.
func TestAReplicaThatMissesTheEndOfItsRecoveryIsLetInAgain(t *testing.T) {
	n := startNodes(t, 1, 1)
	for i := range n.running {
		n.awaitEpoch(i, 1)
	}
	key := n.groupKey(0)
	off := n.cutOff()
	n.order(1, key, 6)
	n.stop(5)
	n.start(5)
	n.awaitState(1, func(v *governance.View) bool { return len(v.Attested) == 1 || v.Epoch == 2 })
	off.Store(true)
	for i := range 5 {
		n.awaitEpoch(i, 2)
	}
	require.EqualValues(t, 1, n.running[5].State().Epoch)
	off.Store(false)
	n.awaitEpoch(5, 2)
	n.put(5, key, "let", "in")
}
