//go:build mutants

package hsm_test

import (
	"testing"

	"github.com/reseal-bft/reseal/hsm"
	"github.com/stretchr/testify/require"
)

// finds names the attack that each planted bug lets win.
var finds = map[string]string{
	"attributes-unchecked": "an envelope under a key of known value",
	"key-found":            "keys of the token, made and wrapped",
	"key-by-label":         "keys of known value, made beforehand",
	"strangers-stay":       "objects of our names that stay",
	"superseded-stay":      "a copy from before a sealing again",
	"abandoned-stay":       "a key that no envelope names",
	"past-stays":           "a copy from before the epoch",
}

func TestMutants(t *testing.T) {
	defer hsm.Plant("")
	for _, mutant := range hsm.Mutants() {
		require.True(t, hsm.Plant(mutant))
		attack := attacks[finds[mutant]]
		require.NotNil(t, attack, "nothing finds %s", mutant)
		won := attack(t)
		require.NotEmpty(t, won, "%s does not find %s", finds[mutant], mutant)
		t.Log(mutant, "is found by", finds[mutant], "-", won)
	}
}
