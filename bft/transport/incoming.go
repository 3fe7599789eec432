package transport

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
)

// incoming is the connection on which a peer sends frames.
type incoming struct {
	from    Sender
	conn    net.Conn
	began   time.Time
	stopped chan struct{}
	once    sync.Once
}

// stop ends the connection: the handler is called with no further frame.
func (in *incoming) stop() {
	in.once.Do(func() { close(in.stopped) })
	_ = in.conn.Close()
}

// isStopped reports whether the connection was ended.
func (in *incoming) isStopped() bool {
	select {
	case <-in.stopped:
		return true
	default:
		return false
	}
}

// acceptFrames takes a connection of frames that has just been authenticated.
func (t *Transport) acceptFrames(conn net.Conn, state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("only replicas send frames")
	}
	from, err := t.identify(state.PeerCertificates[0])
	if err != nil {
		return err
	}
	in := &incoming{from: from, conn: conn, began: time.Now(), stopped: make(chan struct{})}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil || t.peers[from.ID] == nil {
		return errors.New("the replica was removed, or this one is closing")
	}
	handling := t.handling[from.ID]
	if handling == nil {
		handling = make(chan struct{}, 1)
		t.handling[from.ID] = handling
	}
	old := t.incoming[from.ID]
	owner, other := t.named(from), old != nil && t.named(old.from)
	if other && !owner {
		return fmt.Errorf("a connection of replica %d under the key that counts for it is there already", from.ID)
	}
	if t.twins.appears(from.ID, state.PeerCertificates[0].Raw) && old != nil && owner == other && in.began.Sub(old.began) < twinLives {
		return errTwin
	}
	t.incoming[from.ID] = in
	if old != nil {
		old.stop()
	}
	t.done.Go(func() {
		// Frames are handled in order. Who connects again while one is handled, and again, leaves
		// nothing of the connections between.
		select {
		case handling <- struct{}{}:
			err := t.receive(from, in)
			<-handling
			t.cfg.Log.Debug("a peer has stopped sending", "replica", from.ID, "error", err)
		case <-in.stopped:
		}
		t.forget(from.ID, in)
		_ = conn.Close()
	})
	return nil
}

// named reports whether the key of a peer is the one that counts for it.
func (t *Transport) named(from Sender) bool { return t.cfg.Named == nil || t.cfg.Named(from) }

// receive hands the frames of a peer to the handler until the connection ends.
func (t *Transport) receive(from Sender, in *incoming) error {
	if _, err := in.conn.Write([]byte{accepted}); err != nil {
		return err
	}
	// Small, so that most of a large frame is decrypted straight into its place.
	buffered := bufio.NewReaderSize(in.conn, smallFrame)
	for {
		frame, err := readFrame(buffered)
		if err != nil {
			return err
		}
		if in.isStopped() {
			return errors.New("replaced by another connection, or removed")
		}
		t.cfg.Handler(from, frame)
	}
}

// hears reports whether there is a connection on which a peer sends frames.
func (t *Transport) hears(id bft.ReplicaID) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.incoming[id] != nil
}

func (t *Transport) forget(id bft.ReplicaID, in *incoming) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.incoming[id] == in {
		delete(t.incoming, id)
	}
}
