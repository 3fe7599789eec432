package mutant

// The bugs.
const (
	NoCap           = "tpm-no-cap"            // Claim does not cap the boot state
	UseAnyBoot      = "tpm-use-any-boot"      // what the gate key signs holds after a reset too
	OperatorFromDir = "tpm-operator-from-dir" // a file of the directory says who approves boot states
	OpenIdentity    = "tpm-open-identity"     // the identity key stays in the TPM and needs no authorization
	NoIncrement     = "tpm-no-increment"      // Advance does not increment the counter
	ApprovalsForAll = "tpm-approvals-for-all" // approvals are not bound to a device
	OpenHierarchies = "tpm-open-hierarchies"  // Init leaves the hierarchies without authorization
)

// Names lists the bugs.
var Names = []string{NoCap, UseAnyBoot, OperatorFromDir, OpenIdentity, NoIncrement, ApprovalsForAll, OpenHierarchies}
