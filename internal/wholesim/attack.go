package wholesim

import (
	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
)

// attack is what a Byzantine replica does on the network.
type attack struct{}

func (a *attack) sending(to bft.ReplicaID, frame []byte) [][]byte              { return [][]byte{frame} }
func (a *attack) receiving(from transport.Sender, frame []byte) bool           { return true }
func (a *attack) serving(name string, serve transport.Method) transport.Method { return serve }
