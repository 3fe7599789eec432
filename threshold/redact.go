package threshold

import (
	"fmt"
	"io"
	"log/slog"
)

// redacted, embedded in a type that holds a secret, keeps every way of printing from showing it.
type redacted struct{}

const redactedText = "[secret]"

func (redacted) String() string               { return redactedText }
func (redacted) GoString() string             { return redactedText }
func (redacted) Format(s fmt.State, _ rune)   { _, _ = io.WriteString(s, redactedText) }
func (redacted) LogValue() slog.Value         { return slog.StringValue(redactedText) }
func (redacted) MarshalText() ([]byte, error) { return []byte(redactedText), nil }
func (redacted) MarshalJSON() ([]byte, error) { return []byte(`"` + redactedText + `"`), nil }
