package keystore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Limits of an event log.
const (
	MaxEventLog  = 4 << 20 // bytes
	maxEvents    = 1 << 16
	maxLogHashes = 16
)

// Constants of the TCG PC Client Platform Firmware Profile, section 10.
const (
	eventNoAction   = 3
	legacyDigest    = 20 // of SHA-1, in the first event
	specSignature   = "Spec ID Event03\x00"
	startupLocality = "StartupLocality\x00"
)

// Event is an entry of a boot's event log that was extended into a PCR of the
// SHA-256 bank.
type Event struct {
	PCR    int
	Type   uint32 // not measured: do not rely on it
	Digest [sha256.Size]byte
	Data   []byte // what was measured, or a description of it; it need not match Digest
}

// EventLog is what firmware and boot loader say they measured. It proves nothing
// by itself: a quote proves the PCRs, and Predict says whether the log explains
// them.
type EventLog struct {
	Events   []Event
	locality byte // from which PCR 0 was started
}

// ParseEventLog reads a log in the TCG's crypto-agile format, as Linux shows it
// in /sys/kernel/security/tpm0/binary_bios_measurements. It must have SHA-256
// digests.
func ParseEventLog(data []byte) (*EventLog, error) {
	if len(data) > MaxEventLog {
		return nil, fmt.Errorf("event log: larger than %d bytes", MaxEventLog)
	}
	r := logReader{rest: data}
	sizes, err := r.header()
	if err != nil {
		return nil, fmt.Errorf("event log: %w", err)
	}
	var log EventLog
	for n := 0; len(r.rest) > 0 && !r.padding(); n++ {
		if n == maxEvents {
			return nil, fmt.Errorf("event log: more than %d events", maxEvents)
		}
		e, err := r.event(sizes)
		if err != nil {
			return nil, fmt.Errorf("event log: event %d: %w", n+1, err)
		}
		if e.Type != eventNoAction {
			log.Events = append(log.Events, *e)
			continue
		}
		if l, ok := bytes.CutPrefix(e.Data, []byte(startupLocality)); ok && len(l) == 1 && e.PCR == 0 {
			log.locality = l[0]
		}
	}
	return &log, nil
}

// Predict returns what the PCRs of a selection hold after the boot.
func (l *EventLog) Predict(s Selection) []PCRValue {
	var values []PCRValue
	for _, pcr := range s.Indexes() {
		v := PCRValue{Index: pcr}
		if pcr == 0 {
			v.Digest[sha256.Size-1] = l.locality
		}
		for _, e := range l.Events {
			if e.PCR == pcr {
				v.Digest = sha256.Sum256(append(v.Digest[:], e.Digest[:]...))
			}
		}
		values = append(values, v)
	}
	return values
}

// logReader reads little-endian fields; after the first that is missing, bad is
// set and all others are zero.
type logReader struct {
	rest []byte
	bad  bool
}

func (r *logReader) bytes(n uint32) []byte {
	if r.bad || uint64(n) > uint64(len(r.rest)) {
		r.bad = true
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *logReader) uint16() uint16 {
	b := r.bytes(2)
	if b == nil {
		return 0
	}
	return binary.LittleEndian.Uint16(b)
}

func (r *logReader) uint32() uint32 {
	b := r.bytes(4)
	if b == nil {
		return 0
	}
	return binary.LittleEndian.Uint32(b)
}

// padding reports that the rest is what some firmware fills up its log with.
func (r *logReader) padding() bool {
	return len(bytes.Trim(r.rest, "\x00")) == 0 || len(bytes.Trim(r.rest, "\xff")) == 0
}

// header reads the first event, which has the old format and lists the digest
// sizes of the others by algorithm.
func (r *logReader) header() (map[uint16]uint32, error) {
	pcr, kind := r.uint32(), r.uint32()
	r.bytes(legacyDigest)
	spec := logReader{rest: r.bytes(r.uint32())}
	if r.bad || pcr != 0 || kind != eventNoAction || string(spec.bytes(uint32(len(specSignature)))) != specSignature {
		return nil, fmt.Errorf("it does not begin as a crypto-agile log of a TPM 2.0")
	}
	spec.bytes(8) // platform class, versions, size of integers
	count := spec.uint32()
	if count > maxLogHashes {
		return nil, fmt.Errorf("it has %d hash algorithms", count)
	}
	sizes := make(map[uint16]uint32)
	for range count {
		alg := spec.uint16()
		sizes[alg] = uint32(spec.uint16())
	}
	if spec.bad {
		return nil, fmt.Errorf("its first event is cut short")
	}
	if sizes[tpmSHA256] != sha256.Size {
		return nil, fmt.Errorf("it has no SHA-256 digests")
	}
	return sizes, nil
}

// event reads one event with its digests.
func (r *logReader) event(sizes map[uint16]uint32) (*Event, error) {
	pcr := r.uint32()
	e := &Event{Type: r.uint32()}
	count := r.uint32()
	if count > maxLogHashes {
		return nil, fmt.Errorf("it has %d digests", count)
	}
	found := false
	for range count {
		alg := r.uint16()
		size, ok := sizes[alg]
		if !ok {
			return nil, fmt.Errorf("a digest by algorithm %#x, which the log does not declare", alg)
		}
		digest := r.bytes(size)
		if alg == tpmSHA256 && !r.bad {
			e.Digest, found = [sha256.Size]byte(digest), true
		}
	}
	e.Data = r.bytes(r.uint32())
	switch {
	case r.bad:
		return nil, fmt.Errorf("it is cut short")
	case e.Type == eventNoAction:
		e.PCR = int(min(pcr, NumPCRs)) // it may be none
	case pcr >= NumPCRs:
		return nil, fmt.Errorf("it is for PCR %d", pcr)
	case !found:
		return nil, fmt.Errorf("it has no SHA-256 digest")
	default:
		e.PCR = int(pcr)
	}
	return e, nil
}
