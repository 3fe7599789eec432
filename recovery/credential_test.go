package recovery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft/transport"
)

// A credential that was made while the wall clock was wrong is made anew when the clock is right,
// however little time has passed meanwhile.
func TestACredentialIsMadeAnewWhenTheClockIsRight(t *testing.T) {
	now := time.Now()
	worn := wear(nil, transport.Term{}, now)
	require.Equal(t, worn.issued, worn.issued.Round(0), "it is compared by the wall clock")
	require.False(t, worn.old(now))
	for jump, old := range map[time.Duration]bool{
		time.Hour: false, -time.Hour: false, renewal: true, -renewal: true, 50 * 365 * 24 * time.Hour: true, -50 * 365 * 24 * time.Hour: true,
	} {
		require.Equal(t, old, worn.old(now.Round(0).Add(jump)), jump)
	}
}
