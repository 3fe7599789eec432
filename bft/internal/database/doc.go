// Package database keeps Pebble 2.1 from panicking, where that can be done: at files of values
// ("blob files") that are damaged or gone, and at directories that cannot be synced. Its users get
// errors instead.
package database
