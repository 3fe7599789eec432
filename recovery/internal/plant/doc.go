// Package plant names bugs that can be planted in the recovery of a cluster, to show that its tests
// find them. Only a build with the tag mutants can plant one.
package plant
