package drill

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/internal/load"
)

// The bad clients of this file go on until their context ends.

// pound has one client make requests all the time, as many at once as its session bears, whatever
// they come to.
func (r *Rehearsal) pound(ctx context.Context, request func(ctx context.Context, c load.Client, worker int) error) error {
	c, err := r.Control.NewClient()
	if err != nil {
		return err
	}
	defer c.Close()
	var workers sync.WaitGroup
	for worker := range 64 {
		workers.Go(func() {
			for ctx.Err() == nil {
				_ = request(ctx, c, worker) // a refusal is as good as an answer to it
			}
		})
	}
	workers.Wait()
	return nil
}

// greed writes large values, as many at once as a session bears.
func greed(ctx context.Context, r *Rehearsal) error {
	value := make([]byte, kv.MaxValue)
	return r.pound(ctx, func(ctx context.Context, c load.Client, worker int) error {
		return c.Put(ctx, []load.Pair{{Key: fmt.Sprintf("greedy/%d", worker), Value: value}})
	})
}

// hugeReads asks for gigabytes of results with small requests.
func hugeReads(ctx context.Context, r *Rehearsal) error {
	if err := r.Clients[0].Put(ctx, []load.Pair{{Key: "huge", Value: make([]byte, 1_000_000)}}); err != nil {
		return err
	}
	get, err := kv.Get([]byte("huge"))
	if err != nil {
		return err
	}
	operations := make([][]byte, bft.MaxOperations)
	for i := range operations {
		operations[i] = get
	}
	return r.pound(ctx, func(ctx context.Context, c load.Client, _ int) error {
		_, err := c.Submit(ctx, operations...)
		return err
	})
}

// oneShots come once, read a key that is not there, and are never seen again.
func oneShots(ctx context.Context, r *Rehearsal) error {
	for ctx.Err() == nil {
		c, err := r.Control.NewClient()
		if err != nil {
			return err
		}
		c.Ordered = true
		_, _ = c.Get(ctx, []string{"missing"}) // what it hears makes no difference
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}

// unfinished begins requests of the largest size, on many connections, and never ends them: half lack
// their last byte, half their first.
func unfinished(ctx context.Context, r *Rehearsal) error {
	const connections, calls = 16, 100
	var holders sync.WaitGroup
	for _, m := range r.Machines {
		for range connections {
			client := &http.Client{Transport: &http.Transport{
				TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: true,
			}}
			for i := range calls {
				body := make([]byte, 5+bft.MaxRequest-1)
				binary.BigEndian.PutUint32(body[1:], bft.MaxRequest)
				holders.Go(func() { leaveUnfinished(ctx, client, m.Settings.Listen, body[:len(body)*(i%2)]) })
			}
		}
	}
	holders.Wait()
	return nil
}

// leaveUnfinished begins the same call again and again.
func leaveUnfinished(ctx context.Context, client *http.Client, address string, body []byte) {
	for ctx.Err() == nil {
		read, write := io.Pipe()
		go func() { _, _ = write.Write(body) }()
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+"/"+replica.MethodSubmit, read)
		if err != nil {
			return
		}
		request.Header.Set("Content-Type", "application/grpc")
		request.Header.Set("TE", "trailers")
		if response, err := client.Do(request); err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
		}
		_ = read.Close()
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// silent is the number of connections to each replica that say nothing.
const silent = 1500

// silence holds connections to every replica and says nothing on them: more than a replica takes.
func silence(ctx context.Context, r *Rehearsal) error {
	var holders sync.WaitGroup
	for _, m := range r.Machines {
		for range silent {
			holders.Go(func() { holdSilently(ctx, m.Settings.Listen) })
		}
	}
	holders.Wait()
	return nil
}

// holdSilently keeps a connection to a replica open, and opens another when it is closed.
func holdSilently(ctx context.Context, address string) {
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}}} // it does not care whom it talks to
	for ctx.Err() == nil {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			ended := context.AfterFunc(ctx, func() { _ = conn.Close() })
			_, _ = conn.Read(make([]byte, 1<<10)) // what the server says first
			_, _ = conn.Read(make([]byte, 1))
			ended()
			_ = conn.Close()
		}
		select {
		case <-time.After(time.Minute): // silence is what is played, not a flood of handshakes
		case <-ctx.Done():
		}
	}
}
