package wire

import (
	"fmt"
	"slices"
)

// MaxName bounds names and other short texts, in bytes.
const MaxName = 64

// CheckName accepts what can stand in any log and message.
func CheckName(field, s string) error {
	if s == "" || len(s) > MaxName || !Printable(s) {
		return fmt.Errorf("%s: choose 1 to %d printable ASCII characters", field, MaxName)
	}
	return nil
}

// Printable says whether a text is printable ASCII.
func Printable(s string) bool {
	return !slices.ContainsFunc([]byte(s), func(c byte) bool { return c < ' ' || c > '~' })
}

// Text reads 1 to limit printable ASCII characters.
func (r *Reader) Text(limit int) string {
	s := string(r.Bytes(limit))
	r.Check(s != "" && Printable(s))
	return s
}

// Abbreviate shortens what is quoted in an error.
func Abbreviate(text []byte) string {
	if len(text) > 32 {
		return string(text[:32]) + "..."
	}
	return string(text)
}
