package threshold

import "fmt"

// findings says in words what the rows show: where the aims are met, and where lists of signatures are
// the cheaper certificates to verify.
func findings(rows []Row) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, r := range rows {
		say("n=%d: combine and verify is %.1f times faster than kyber's tbls.Recover on BN256, and takes %.2f times blst's own primitives",
			r.N, r.KyberRecover/r.CombineAndVerify, r.CombineAndVerify/r.Primitives)
	}
	for _, list := range []struct {
		name   string
		verify func(Row) float64
	}{
		{"Ed25519 signatures verified one by one", func(r Row) float64 { return r.ListVerify }},
		{"Ed25519 signatures verified as a batch", func(r Row) float64 { return r.ListBatchVerify }},
		{"ECDSA P-256 signatures verified one by one", func(r Row) float64 { return r.ECDSAListVerify }},
	} {
		out = append(out, crossing(list.name, rows, list.verify, func(r Row) float64 { return r.Verify }))
	}
	return out
}

// crossing says up to which n the list is cheaper to verify than the certificate, interpolating
// between the rows.
func crossing(name string, rows []Row, list, certificate func(Row) float64) string {
	for i, r := range rows {
		if list(r) <= certificate(r) {
			continue
		}
		if i == 0 {
			return fmt.Sprintf("a list of q %s is the dearer to verify from n=%d on, the smallest measured", name, r.N)
		}
		before := rows[i-1]
		gapBefore, gap := certificate(before)-list(before), list(r)-certificate(r)
		n := float64(before.N) + float64(r.N-before.N)*gapBefore/(gapBefore+gap)
		return fmt.Sprintf("a list of q %s is cheaper to verify than the certificate below about n=%.0f, and dearer above", name, n)
	}
	return fmt.Sprintf("a list of q %s is cheaper to verify than the certificate at every n measured", name)
}
