package trace

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/monitor"
	"github.com/reseal-bft/reseal/internal/files"
)

// Verdict is what the monitor says of traces.
type Verdict struct {
	Lives, Cores, Steps int
	// Faults are what was not justified, each with its place: at most ten of a life.
	Faults []string
}

func (v *Verdict) String() string {
	return fmt.Sprintf("%d steps of %d cores in %d lives", v.Steps, v.Cores, v.Lives)
}

const maxFaults = 10

// JudgeAll judges the traces of all lives in a replica's directory. A directory that does not exist
// has none.
func (v *Verdict) JudgeAll(dir string) error {
	lives, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	for _, file := range lives {
		err = errors.Join(err, v.judgeFile(file))
	}
	return err
}

func (v *Verdict) judgeFile(path string) error {
	file, err := files.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	life := Verdict{Lives: 1}
	err = life.judge(file)
	v.Lives, v.Cores, v.Steps = v.Lives+1, v.Cores+life.Cores, v.Steps+life.Steps
	for _, fault := range life.Faults {
		v.Faults = append(v.Faults, path+": "+fault)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// judge judges one life. Each core has a monitor of its own. A last record that is cut off belongs
// to a process that was killed.
func (v *Verdict) judge(in io.Reader) error {
	in = bufio.NewReader(in)
	var watch func(bft.Now, bft.Event, []bft.Effect)
	steps := 0
	begin := monitor.Observe(func(cfg bft.Config, sentence string) {
		if len(v.Faults) < maxFaults {
			v.Faults = append(v.Faults, fmt.Sprintf("replica %d, epoch %d, core %d of this life, step %d: it %s", cfg.Self, cfg.Epoch, v.Cores, steps, sentence))
		}
	})
	for {
		x, err := read(in)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return fmt.Errorf("after %d steps: %w", v.Steps, err)
		case x.Start != nil:
			v.Cores++
			steps, watch = 0, begin(x.Start.Config, x.Start.Restored)
		case watch == nil || x.Step == nil:
			return errDamaged
		default:
			watch(x.Step.Now, x.Step.Event, x.Step.Effects)
			steps++
			v.Steps++
		}
	}
}

// read reads a record.
func read(in io.Reader) (*record, error) {
	var size [4]byte
	if _, err := io.ReadFull(in, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxRecord {
		return nil, errDamaged
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(in, b); err != nil {
		return nil, err
	}
	x, r := new(record), &reader{b: b}
	r.value(reflect.ValueOf(x).Elem())
	if r.failed || len(r.b) > 0 {
		return nil, errDamaged
	}
	return x, nil
}
