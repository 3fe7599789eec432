package bft

// Limits on results, in bytes. What exceeds one is let go while the block is executed, the same at
// every replica.
const (
	MaxResult       = 1 << 20  // of one operation
	MaxResults      = 8 << 20  // of the operations of one request together, so that a reply can travel
	MaxBlockResults = 16 << 20 // of all operations of a block
)

// Results takes the results of a block's operations while they are made, in the operations' order,
// and keeps what there is room for. Half of [MaxBlockResults] is shared out to the block's requests
// alike, so that requests with large results leave some to the others; the other half is taken by
// who comes first. It is used by one goroutine.
type Results struct {
	requests [][][]byte
	at       int // the request that the next result belongs to; len(requests) when all results are there
	left     int // bytes that this request may still have
	own      int // of these, what it has of its share
	share    int
	common   int
}

// NewResults makes room for the results of requests with so many operations each.
func NewResults(operations []int) *Results {
	r := &Results{requests: make([][][]byte, len(operations)), at: -1, common: MaxBlockResults / 2}
	if len(operations) > 0 {
		r.share = MaxBlockResults / 2 / len(operations)
	}
	for i, n := range operations {
		r.requests[i] = make([][]byte, 0, n) // apart from each other: some are held for longer than others
	}
	r.next()
	return r
}

// next goes on to the next request that has an operation.
func (r *Results) next() {
	for r.at++; r.at < len(r.requests) && cap(r.requests[r.at]) == 0; r.at++ {
	}
	r.left, r.own = MaxResults, r.share
}

// Room is how many bytes the next result may have. An application need not make one that is larger.
func (r *Results) Room() int {
	if r.at == len(r.requests) {
		return 0
	}
	return min(MaxResult, r.left, r.own+r.common)
}

// Add takes the result of the next operation; it may be kept and must not be changed. A result that
// there is no [Results.Room] for becomes empty, and its client is told so by that. Results beyond
// the last operation's are let go.
func (r *Results) Add(result []byte) {
	if r.at == len(r.requests) {
		return
	}
	if len(result) > r.Room() {
		result = nil
	}
	r.left -= len(result)
	ofShare := min(r.own, len(result))
	r.own -= ofShare
	r.common -= len(result) - ofShare
	request := append(r.requests[r.at], result)
	r.requests[r.at] = request
	if len(request) == cap(request) {
		r.next()
	}
}

// Of returns the results of a request, by operation. Those that nobody added are empty.
func (r *Results) Of(request int) [][]byte { return r.requests[request][:cap(r.requests[request])] }

// Missing is the number of operations whose results were not added: 0, but for an application that
// is wrong.
func (r *Results) Missing() (n int) {
	for _, request := range r.requests {
		n += cap(request) - len(request)
	}
	return n
}
