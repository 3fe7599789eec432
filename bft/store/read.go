package store

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/internal/database"
)

// get returns a copy of the value of a key; nil when there is none.
func (s *Store) get(key []byte) (out []byte, err error) {
	defer database.Recover(&err, s.missing)
	value, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, s.readError(err)
	}
	out = append(make([]byte, 0, len(value)), value...)
	return out, s.readError(closer.Close())
}

func (s *Store) readError(err error) error {
	if pebble.IsCorruptionError(err) {
		return s.corrupt(err.Error())
	}
	return explain(s.dir, err)
}

// Block returns the block with the given digest; nil when it is not stored.
func (s *Store) Block(digest bft.Digest) (*bft.Block, error) {
	height, err := s.get(indexKey(digest))
	if err != nil || height == nil {
		return nil, err
	}
	if len(height) != 8 {
		return nil, s.corrupt("the index entry of block " + digest.String())
	}
	return s.blockAt(bft.Height(binary.BigEndian.Uint64(height)), digest)
}

func (s *Store) blockAt(h bft.Height, digest bft.Digest) (block *bft.Block, err error) {
	defer database.Recover(&err, s.missing)
	value, closer, err := s.db.Get(blockKey(h, digest))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, s.readError(err)
	}
	block, malformed := bft.ParseBlock(bytes.Clone(value)) // checks the payload against the header
	if err := closer.Close(); err != nil {
		return nil, s.readError(err)
	}
	if malformed != nil || block.Height != h || block.Digest() != digest {
		return nil, s.corrupt("block " + digest.String())
	}
	return block, nil
}

// final is the record of a final height.
type final struct {
	height bft.Height
	digest bft.Digest
	view   bft.View
}

func (s *Store) parseFinal(h bft.Height, value []byte) (final, error) {
	if len(value) != 32+8 {
		return final{}, s.corrupt("the record of a final block")
	}
	return final{h, bft.Digest(value[:32]), bft.View(binary.BigEndian.Uint64(value[32:]))}, nil
}

// BlockAt returns the final block of a height; nil when it is not stored, or not known to be final.
func (s *Store) BlockAt(h bft.Height) (*bft.Block, error) {
	value, err := s.get(finalKey(h))
	if err != nil || value == nil {
		return nil, err
	}
	f, err := s.parseFinal(h, value)
	if err != nil {
		return nil, err
	}
	return s.blockAt(h, f.digest)
}

// Blocks returns final blocks of the heights from to to, both included, in order: up to the first
// that is missing, and until their payloads exceed maxBytes (but always the first).
func (s *Store) Blocks(from, to bft.Height, maxBytes int) ([]*bft.Block, error) {
	var blocks []*bft.Block
	for h, size := from, 0; h <= to; h++ {
		block, err := s.BlockAt(h)
		if err != nil {
			return nil, err
		}
		if block == nil {
			break
		}
		if size += len(block.Payload); size > maxBytes && len(blocks) > 0 {
			break
		}
		blocks = append(blocks, block)
		if h == to { // to may be the largest height
			break
		}
	}
	return blocks, nil
}

// LastFinal returns the height of the last block known to be final; ok is false when there is none.
func (s *Store) LastFinal() (h bft.Height, ok bool, err error) {
	f, ok, err := s.lastFinal()
	return f.height, ok, err
}

func (s *Store) lastFinal() (f final, ok bool, err error) {
	err = s.scan([]byte{prefixFinal}, []byte{prefixFinal + 1}, func(it *pebble.Iterator) error {
		if !it.Last() {
			return nil
		}
		if len(it.Key()) != 9 {
			return s.corrupt("the key of a final block")
		}
		f, err = s.parseFinal(bft.Height(binary.BigEndian.Uint64(it.Key()[1:])), it.Value())
		ok = err == nil
		return err
	})
	return f, ok, err
}

// Certificate returns the certificate for a statement, if it is stored.
func (s *Store) Certificate(statement bft.Statement) (c bft.Certificate, ok bool, err error) {
	signature, err := s.get(certificateKey(statement))
	if err != nil || signature == nil {
		return c, false, err
	}
	return bft.Certificate{Statement: statement, Signature: signature}, true, nil
}

// Notarization returns the notarization of a stored block, if it is stored too.
func (s *Store) Notarization(block *bft.Block) (bft.Certificate, bool, error) {
	return s.Certificate(bft.Statement{Epoch: block.Epoch, View: block.View, Kind: bft.Notarize, Block: block.Digest()})
}

// LatestFinalization returns the finalization of the latest view; ok is false when there is none.
func (s *Store) LatestFinalization() (c bft.Certificate, ok bool, err error) {
	lower, upper := []byte{prefixCertificate, byte(bft.Finalize)}, []byte{prefixCertificate, byte(bft.Finalize) + 1}
	err = s.scan(lower, upper, func(it *pebble.Iterator) error {
		if !it.Last() {
			return nil
		}
		c, err = s.certificateAt(it)
		ok = err == nil
		return err
	})
	return c, ok, err
}

// Finalizations returns the finalizations of an epoch from a view on, in order of views.
func (s *Store) Finalizations(e bft.Epoch, from bft.View) ([]bft.Certificate, error) {
	var found []bft.Certificate
	err := s.each(certificatePrefix(bft.Finalize, e, from), certificatePrefix(bft.Finalize, e+1, 0), func(it *pebble.Iterator) error {
		c, err := s.certificateAt(it)
		found = append(found, c)
		return err
	})
	return found, err
}

func (s *Store) certificateAt(it *pebble.Iterator) (bft.Certificate, error) {
	statement, ok := splitCertificateKey(it.Key())
	if !ok {
		return bft.Certificate{}, s.corrupt("the key of a certificate")
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return bft.Certificate{}, s.readError(err)
	}
	return bft.Certificate{Statement: statement, Signature: append([]byte(nil), value...)}, nil
}

// Meta returns the value under a name; nil when there is none.
func (s *Store) Meta(name string) ([]byte, error) { return s.get(metaKey(name)) }

// EachMeta calls f for each value whose name begins with a prefix, in the order of names, until f
// fails. The value must not be kept.
func (s *Store) EachMeta(prefix string, f func(name string, value []byte) error) error {
	lower := metaKey(prefix)
	return s.scan(lower, append(metaKey(prefix), 0xff), func(it *pebble.Iterator) error {
		for ok := it.First(); ok; ok = it.Next() {
			value, err := it.ValueAndErr()
			if err != nil {
				return s.readError(err)
			}
			if err := f(string(it.Key()[1:]), value); err != nil {
				return err
			}
		}
		return nil
	})
}

// scan runs f on an iterator over the keys from lower up to but without upper.
func (s *Store) scan(lower, upper []byte, f func(*pebble.Iterator) error) (err error) {
	defer database.Recover(&err, s.missing)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return s.readError(err)
	}
	defer func() {
		if closed := it.Close(); err == nil && closed != nil {
			err = s.readError(closed)
		}
	}()
	return f(it)
}

// each calls f at every key from lower up to but without upper.
func (s *Store) each(lower, upper []byte, f func(*pebble.Iterator) error) error {
	return s.scan(lower, upper, func(it *pebble.Iterator) error {
		for ok := it.First(); ok; ok = it.Next() {
			if err := f(it); err != nil {
				return err
			}
		}
		return nil
	})
}
