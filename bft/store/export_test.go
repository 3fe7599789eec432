package store

// Flush writes what is in memory to table files.
func (s *Store) Flush() error { return s.db.Flush() }
