// Package judges holds tests that judge the keystore by other people's data and
// code, where those are too heavy for the library's module.
package judges
