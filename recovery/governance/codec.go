package governance

import "github.com/reseal-bft/reseal/recovery/internal/wire"

// reader and writer add to the common encodings those of this room.
type (
	reader struct{ *wire.Reader }
	writer struct{ wire.Writer }
)

func newReader(b []byte) *reader { return &reader{wire.NewReader(b)} }
