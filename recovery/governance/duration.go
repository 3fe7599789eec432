package governance

import (
	"fmt"
	"time"

	"github.com/reseal-bft/reseal/recovery/internal/wire"
)

// Duration is a [time.Duration] whose text is like "1h30m".
type Duration time.Duration

// String returns the duration as Go writes it.
func (d Duration) String() string { return time.Duration(d).String() }

// milliseconds is the duration in the unit of block times.
func (d Duration) milliseconds() int64 { return time.Duration(d).Milliseconds() }

// MarshalText writes the duration as Go does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a duration like "500ms" or "24h".
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("duration %q: write it like \"500ms\" or \"24h\"", wire.Abbreviate(text))
	}
	*d = Duration(v)
	return nil
}
