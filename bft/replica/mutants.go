//go:build mutants

package replica

import "sync/atomic"

// planted is the bug in force, see [Plant].
var planted atomic.Pointer[string]

// Plant leaves out one check of replicas from now on; the empty name leaves out none. It exists
// only in builds with the tag mutants.
func Plant(name string) { planted.Store(&name) }

func broken(name string) bool {
	bug := planted.Load()
	return bug != nil && *bug == name
}
