// Package actor lets a replica of a drill misbehave: a process that is a whole node like any other,
// but whose wall clock and network follow a [Conduct], a small file that the drill rewrites while
// the node runs. The replica that is shipped has no such seam: an actor is another command.
package actor
