package recovery

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// Measurement is the content of a PCR of the SHA-256 bank. Its text is 64 hexadecimal digits.
type Measurement [sha256.Size]byte

// String returns the hexadecimal digits.
func (m Measurement) String() string { return hex.EncodeToString(m[:]) }

// MarshalText writes the hexadecimal digits.
func (m Measurement) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads hexadecimal digits.
func (m *Measurement) UnmarshalText(text []byte) error {
	if len(text) != 2*len(m) {
		return fmt.Errorf("PCR value %q: write %d hexadecimal digits", abbreviate(text), 2*len(m))
	}
	if _, err := hex.Decode(m[:], text); err != nil {
		return fmt.Errorf("PCR value %q: %w", abbreviate(text), err)
	}
	return nil
}

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
		return fmt.Errorf("duration %q: write it like \"500ms\" or \"24h\"", abbreviate(text))
	}
	*d = Duration(v)
	return nil
}

func abbreviate(text []byte) string {
	if len(text) > 32 {
		return string(text[:32]) + "..."
	}
	return string(text)
}
