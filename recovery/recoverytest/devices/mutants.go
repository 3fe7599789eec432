//go:build mutants

package devices

import (
	"github.com/reseal-bft/reseal/hsm"
	"github.com/reseal-bft/reseal/keystore/mutant"
	"github.com/reseal-bft/reseal/recovery"
)

// Fault is one by which what an intruder held was worth something after the reboot, once. It can be
// planted again.
type Fault struct {
	Name string
	// Kind is that of the devices on which it is one, and Within how many seeds of the intruder
	// find it, at most.
	Kind   string
	Within uint64
	// Shows is what one of the findings says.
	Shows string

	plant func()
	// Behind: only a plan in which somebody is left behind can show it.
	Behind bool
}

// Faults are all of them. The bugs themselves are in the rooms that they concern.
var Faults = []Fault{
	{"lapsed-keeps", "file", 20, "in which it was clean", func() { recovery.Plant("lapsed-keeps") }, false},                                // a secret's end hangs on success
	{"found-key-attested", "file", 10, "that was taken in epoch", func() { recovery.Plant("found-key-attested") }, false},                  // a key from before the reboot is attested
	{"share-found", "file", 10, "holds", func() { recovery.Plant("planted-share") }, false},                                                // a share from before the boot counts
	{"vault-key-found", "file", 20, "in which it was clean", func() { recovery.Plant("old-vault") }, false},                                // parts are stored under one
	{"nobody-vouches", "file", 12, "the group secret is known: a signature was forged", func() { recovery.Plant("nobody-vouches") }, true}, // one that is cut off goes by its log, and by nobody
	{"few-vouch", "file", 12, "the group secret is known: a signature was forged", func() { recovery.Plant("few-vouch") }, true},           // or by f others, where the intruder is
	{"words-in-turn", "file", 24, "the group secret is known: a signature was forged", func() { recovery.Plant("words-in-turn") }, true},   // or by words of several moments, as he goes from one to the next
	{"hsm-key-by-label", "softhsm", 10, "planted in the token", func() { hsm.Plant("key-by-label") }, false},                               // what is found in a token is trusted by its name
	{"approving-key-from-disk", "swtpm", 6, "in which it was clean", func() { mutant.Plant(mutant.OperatorFromDir) }, false},               // the directory says who approves boot states
	{"access-is-replica", "swtpm", 2, "signs with the replica", func() { mutant.Plant(mutant.OpenIdentity) }, false},                       // the identity key has an empty authorization
	{"same-boot", "swtpm", 2, "in the same boot", func() { mutant.Plant(mutant.NoCap) }, false},                                            // what opened once in a boot opens again
	{"revocation-not-in-device", "swtpm", 6, "revoked", func() { recovery.Plant("revocation-not-executed") }, false},                       // the log revokes, and the TPM does not
}

// Plant plants the fault, and returns what takes it out again.
func (f Fault) Plant() (out func()) {
	f.plant()
	return func() {
		hsm.Plant("")
		mutant.Plant("")
		recovery.Plant("")
	}
}
