package threshold

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNoMethodPanicsOnNilsAndZeroValues calls every method of every public type on nil and on the
// zero value, with nil and zero arguments, and with zero values behind pointers. Methods that
// return an error return one.
func TestNoMethodPanicsOnNilsAndZeroValues(t *testing.T) {
	// What makes sense of nothing: encodings of public values that have no invalid value, and marks
	// for printing.
	harmless := map[string]bool{"MarshalText": true, "MarshalJSON": true, "Format": true}
	for _, of := range []any{
		new(Share), new(PublicKey), new(Commitment), new(Dealing), new(Part), new(Point), new(Sharing), new(Transition),
		new(CertifiedDealing), new(CertifiedKey), new(Link), new(Params), new(PartialSignature), new(Signature),
	} {
		zero := reflect.ValueOf(of)
		for _, receiver := range []reflect.Value{zero, reflect.Zero(zero.Type())} {
			for m := range zero.Type().NumMethod() {
				method := zero.Type().Method(m)
				if _, ofValue := zero.Type().Elem().MethodByName(method.Name); harmless[method.Name] || ofValue && receiver.IsNil() {
					continue // a nil pointer has no value to call it on
				}
				for _, pointers := range []bool{false, true} {
					arguments := []reflect.Value{receiver}
					for i := 1; i < method.Type.NumIn(); i++ {
						in := method.Type.In(i)
						if pointers && in.Kind() == reflect.Pointer {
							arguments = append(arguments, reflect.New(in.Elem()))
						} else if !method.Type.IsVariadic() || i < method.Type.NumIn()-1 {
							arguments = append(arguments, reflect.Zero(in))
						}
					}
					name := fmt.Sprintf("%v.%s, nil: %v", zero.Type(), method.Name, receiver.IsNil())
					require.NotPanics(t, func() {
						results := method.Func.Call(arguments)
						if n := len(results); n > 0 && method.Type.Out(n-1) == reflect.TypeFor[error]() {
							require.False(t, results[n-1].IsNil(), name)
						}
					}, name)
				}
			}
		}
	}
}

func TestNoFunctionPanicsOnNilsAndZeroValues(t *testing.T) {
	g := generate(t, defaultParams, 2)
	key := g.sharing.GroupKey()
	for name, call := range map[string]func() error{
		"Deal without randomness":    func() error { _, err := Deal(nil, defaultParams, nil); return err },
		"Deal for nobody":            func() error { _, err := Deal(zeros{}, Params{}, nil); return err },
		"Redeal a zero share":        func() error { _, err := Redeal(zeros{}, defaultParams, nil, new(Share)); return err },
		"KeyGeneration of nil":       func() error { _, err := KeyGeneration(nil); return err },
		"KeyGeneration of zero":      func() error { _, err := KeyGeneration(new(CertifiedDealing)); return err },
		"Resharing of nil":           func() error { _, err := Resharing(g.sharing, nil); return err },
		"Resharing from zero":        func() error { _, err := Resharing(new(Sharing), new(CertifiedDealing)); return err },
		"SumPublicKeys of nil":       func() error { _, err := SumPublicKeys(nil, nil); return err },
		"SumPublicKeys of zero":      func() error { _, err := SumPublicKeys(new(CertifiedKey)); return err },
		"VerifyBatch of zeros":       func() error { return VerifyBatch(zeros{}, make([]BatchItem, 3)) },
		"VerifyBatch of zero keys":   func() error { return VerifyBatch(zeros{}, []BatchItem{{Key: new(PublicKey)}, {Key: new(PublicKey)}}) },
		"VerifyBatch without source": func() error { return VerifyBatch(nil, []BatchItem{{Key: key}, {Key: key}}) },
		"VerifyChain from zero":      func() error { _, err := VerifyChain(new(PublicKey), nil); return err },
		"VerifyChain to zero":        func() error { _, err := VerifyChain(key, []Link{{Next: new(PublicKey)}}); return err },
	} {
		require.NotPanics(t, func() { require.Error(t, call(), name) }, name)
	}
	require.NotPanics(t, func() { LinkMessage(nil, new(PublicKey)) })
	_, bad, err := dealt(t, defaultParams).Commitment().Complete(1, make([]Point, 3))
	require.Empty(t, bad)
	require.ErrorIs(t, err, ErrInconsistent)
}
