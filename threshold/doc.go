// Package threshold is BLS threshold signatures over BLS12-381: a group of N receivers of which any T
// make one 48-byte signature, verified under one group public key that outlives every change of the
// group.
//
// # Signatures
//
// Signatures are points of G1, public keys points of G2, messages are hashed with the ciphersuite
// [Ciphersuite]: any standard BLS library verifies a combined signature. [Share.Sign] makes a partial
// signature, [Sharing.Combine] makes the group's signature of any T of them, [PublicKey.Verify] and
// [VerifyBatch] verify. Signing and combining are deterministic: whichever T receivers sign, and
// whatever the sharing, the group's signature on a message is the same 48 bytes.
//
// # A partial signature does not prove who signed
//
// T partial signatures on one message determine everybody's, by interpolation: whoever has T of them
// computes what each of the other receivers would have signed. So no collection of partial signatures
// ever proves that more than T receivers signed, nor that a particular one did. Attribute a partial
// signature by the authenticated channel that it came over, and use ordinary signature keys for
// whatever must convince somebody else that one particular receiver said something. The same goes for
// shares: T of them are the group key. TestPartialsDetermineEverybodys shows it.
//
// # Dealings
//
// Key generation, refresh and resharing are made of dealings, after Cachin, Kursawe, Lysyanskaya
// and Strobl (CCS 2002) and Kokoris-Kogias, Malkhi and Spiegelman (CCS 2020): a dealer chooses
// phi(x, y), of degree T-1 in x and F in y, commits to every coefficient, and gives receiver j the
// row phi(j, y) and the column phi(x, j) ([Dealing.Part]). The share that j gets is phi(j, 0). A
// receiver checks its part ([Commitment.VerifyPart]) and acknowledges
// [Commitment.AcknowledgementMessage]; T acknowledgements certify the dealing. Then any receiver
// that missed its part, or got a wrong one, completes it from F+1 others' points ([Part.Point],
// [Commitment.Complete]): nobody complains, nothing times out and no share is revealed. Of T
// acknowledgements T-F at least are by correct receivers, which hold their columns; so T > 2F makes
// sure that F+1 of them can give points, whatever the dealer does from then on. A part without its
// column is none that a dealer may give: [ParsePart] and [Commitment.VerifyPart] refuse it. One
// that was completed from points has its row only, and its own ways: [ParseCompletedPart],
// [Commitment.VerifyCompleted].
//
// A dealing counts only when it is certified: a [CertifiedDealing] is made by [Commitment.Certify],
// of a commitment, the context that it must be bound to, and the quorum's certificate on a
// statement that is derived from the commitment. Without it one dealer could choose its dealing
// after it has seen the others', and hold the key alone. The context names the dealer: two dealings
// with one context are not combined.
//
// [KeyGeneration] adds up dealings of random secrets ([Deal]). [Resharing] interpolates T dealings of
// shares ([Redeal]): the secret and the group key stay, shares of different sharings do not combine, and
// the receivers, T and F may all be others. Who chooses the dealings, and makes sure that everybody
// chooses the same, is the caller's matter (a consensus protocol's, say); so are confidential channels
// for parts and points.
//
// A group key is given up by letting it sign its successor: [LinkMessage], [VerifyChain].
//
// # Secrets
//
// [Share], [Dealing], [Part] and [Point] print as "[secret]" by every route (fmt, log/slog,
// encoding/json), are compared in constant time, and have Wipe. All arithmetic on secret scalars is
// blst's constant-time arithmetic. Go may copy memory when it grows stacks and nothing here locks
// memory: Wipe shortens a secret's life, it is no guarantee. What is computed on the way to a
// result is wiped before a function returns: scalars, coordinates of secret multiples, blst's
// tables on the C stack, encodings.
//
// # What this package does not promise
//
// Distributed key generation of this kind lets a last dealer bias the group key's distribution (it sees
// the others' commitments); for BLS signatures this is harmless (Gennaro, Jarecki, Krawczyk and Rabin,
// J. Cryptology 2007; Bacho and Loss, CCS 2022).
//
// Privacy, exactly: T-1 shares of one sharing give nothing about the key and T give it; the parts
// of F receivers give nothing about what was dealt, and those of F+1 give it, by their columns
// alone (they meet at phi(0, 0)); F points for a receiver give nothing about its share and F+1 are
// its row. So security is against at most F receivers corrupted between one resharing and the next,
// and parts are to be wiped as soon as the share is made and nobody can need their points any more.
//
// Signature verification and combination are variable-time: their inputs are public.
//
// The package needs cgo and a 64-bit platform, and knows nothing of consensus.
package threshold
