package transport

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/grpc/mem"
)

// codec passes bytes through: []byte for a call, frames for the stream of frames. What is received is one allocation, and a copy.
type codec struct{}

// frames are sent as one gRPC message: each behind its length, 4 bytes.
type frames [][]byte

func (codec) Name() string { return "reseal" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	switch x := v.(type) {
	case []byte:
		return mem.BufferSlice{mem.SliceBuffer(x)}, nil
	case frames:
		lengths := make([]byte, 0, 4*len(x))
		out := make(mem.BufferSlice, 0, 2*len(x))
		for _, frame := range x {
			lengths = binary.BigEndian.AppendUint32(lengths, uint32(len(frame)))
			out = append(out, mem.SliceBuffer(lengths[len(lengths)-4:]), mem.SliceBuffer(frame))
		}
		return out, nil
	}
	return nil, fmt.Errorf("cannot send a %T", v)
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	to, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("cannot receive into a %T", v)
	}
	*to = data.Materialize()
	return nil
}

// eachFrame calls f with the frames of a message, which are slices of it. It reports whether the message was well-formed.
func eachFrame(message []byte, f func(frame []byte)) bool {
	for len(message) > 0 {
		if len(message) < 4 {
			return false
		}
		n := int(binary.BigEndian.Uint32(message))
		if message = message[4:]; n > len(message) {
			return false
		}
		f(message[:n:n])
		message = message[n:]
	}
	return true
}
