// Package budget says how much memory each part of a replica may take: everybody who keeps what
// others can make large asks here, and the sum is the replica's memory limit. What a part does when
// its budget is used up is its own business, and said in docs/limits.md.
//
// Some of it is the same for every limit: what the protocol needs to go on in the worst case. The
// rest has a least size each, and shares what is left.
package budget
