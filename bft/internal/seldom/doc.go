// Package seldom decides when the log says again what happens over and over. Who causes a line each
// time, such as a peer with each of its frames, would fill the disk; and who is silenced by somebody
// else's lines would go unnoticed.
package seldom
