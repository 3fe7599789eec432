// Package fair shares out turns: each goes to who was served least, of those that wait for one.
// What turns are worth, bytes or time, is the caller's business.
//
// It is start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996) over a tree: first among the
// children of the root, then among the children of the one that was chosen, and so on. However much
// one of them has waiting, and into however many children it divides it, another that asks for
// little has the next turn.
package fair
