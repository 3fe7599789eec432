// Package dbfs is the file system of databases, as [files] is of other files: what is no regular
// file is neither opened nor locked.
package dbfs
