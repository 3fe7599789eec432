//go:build mutants

package handoff

// Mutants are the bugs that can be planted: each is a rule of the life of secrets, or of dealings,
// left out.
var Mutants = []string{
	"lapsed-keeps",       // a replica that gets no share of a new epoch keeps what it has
	"leap-keeps",         // a replica that missed an epoch keeps the share of the last one that it knew
	"share-kept",         // the share of the epoch before is kept although the new one has signed
	"device-stays",       // the device does not follow the epochs
	"parts-stay",         // parts on disk are not deleted with their epoch
	"columns-stay",       // parts in memory are not wiped with their epoch
	"planted-share",      // a share that was sealed before the boot counts
	"found-key-attested", // a fresh key from before the boot is attested
	"old-vault",          // parts are stored under a key from before the boot
	"any-key",            // parts are served to any key of a member
}
