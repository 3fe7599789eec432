//go:build !mutants

package wholesim

func plantBug(string) {}
