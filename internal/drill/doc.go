// Package drill rehearses what must not go wrong: each drill plays one attack or one accident on a
// cluster of real processes, tells what happens, and checks what the documentation promises about
// it. What a drill starts and makes is gone when it ends.
//
// A reader's path: drill.go (what a drill is, and how it is run), then one file for each family of
// drills. A drill is a function on a [Rehearsal]; it calls [Rehearsal.Check] for every promise,
// with what was seen, and returns an error only when it could not be played to its end.
package drill
