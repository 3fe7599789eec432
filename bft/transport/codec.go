package transport

import (
	"fmt"

	"google.golang.org/grpc/mem"
)

// codec passes the bytes of calls through gRPC. What is received is one allocation, and a copy.
type codec struct{}

func (codec) Name() string { return "reseal" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	switch x := v.(type) {
	case []byte:
		return mem.BufferSlice{mem.SliceBuffer(x)}, nil
	case *heldReply:
		return mem.BufferSlice{mem.NewBuffer(&x.data, x)}, nil
	default:
		return nil, fmt.Errorf("cannot send a %T", v)
	}
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	to, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("cannot receive into a %T", v)
	}
	*to = data.Materialize()
	return nil
}
