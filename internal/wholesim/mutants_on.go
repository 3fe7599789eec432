//go:build mutants

package wholesim

import (
	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/recovery"
)

// plantBug puts a bug into all nodes started from now on. Each room knows its own by name, and
// nothing of the others'.
func plantBug(name string) {
	bft.Plant(name)
	replica.Plant(name)
	recovery.Plant(name)
}
