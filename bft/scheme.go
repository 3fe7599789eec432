package bft

// Scheme makes and checks the certificates of one epoch. Two implementations exist (package
// bft/scheme): threshold BLS signatures, and lists of Ed25519 signatures (epoch 0, and the baseline
// of the benchmarks). Safe for concurrent use.
type Scheme interface {
	// Name is stored with every certificate on disk and tells schemes apart.
	Name() string
	// Combine makes a certificate's signature over message from the partial signatures of different
	// replicas. It drops bad ones and names them; it fails when fewer than the quorum are good.
	Combine(message []byte, partials map[ReplicaID][]byte) (signature []byte, bad []ReplicaID, err error)
	// Verify checks the signatures of several certificates at once and returns for each whether it
	// is good.
	Verify(messages [][]byte, signatures [][]byte) []bool
}

// Signer makes one replica's partial signatures for one epoch. It may fail: a device may be locked
// or gone.
type Signer interface {
	Sign(message []byte) (partial []byte, err error)
}
