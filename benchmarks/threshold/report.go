package threshold

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
)

// Report is what one run measured.
type Report struct {
	Rows     []Row    `json:"rows"`
	Machine  Machine  `json:"machine"`
	Findings []string `json:"findings"` // in words, drawn from the rows
}

// Machine says what the numbers were measured on.
type Machine struct {
	CPU   string `json:"cpu"`
	Cores int    `json:"cores"` // of the machine; one was used
	Go    string `json:"go"`
	OS    string `json:"os"`
}

// Row has the measurements for n receivers, n = 3f+1 and q = n-f of which sign. Times are in
// microseconds of one core's processor time, medians; sizes in bytes.
type Row struct {
	N int `json:"n"`
	Q int `json:"q"`

	Sign             float64 `json:"sign_us"`
	PartialVerify    float64 `json:"partial_verify_us"`
	Combine          float64 `json:"combine_us"` // q partial signatures, decoding included, result not verified
	Verify           float64 `json:"verify_us"`
	CombineAndVerify float64 `json:"combine_and_verify_us"`
	Primitives       float64 `json:"primitives_us"` // the same from blst's Go binding: q decodings, one MSM, one verification
	KyberRecover     float64 `json:"kyber_tbls_recover_us"`
	BatchVerify16    float64 `json:"batch_verify_16_us"` // 16 certificates on as many messages at once
	CertificateBytes int     `json:"certificate_bytes"`

	ListBytes       int     `json:"list_bytes"`           // q Ed25519 signatures and a bitmap of the signers
	ListSign        float64 `json:"list_sign_us"`         // one Ed25519 signature
	ListVerify      float64 `json:"list_verify_us"`       // one by one
	ListBatchVerify float64 `json:"list_batch_verify_us"` // as a batch
	ECDSAListBytes  int     `json:"ecdsa_list_bytes"`     // P-256, fixed-length signatures
	ECDSAListVerify float64 `json:"ecdsa_list_verify_us"`

	Deal          float64 `json:"deal_us"` // the dealing and all its parts
	DealingBytes  int     `json:"dealing_bytes"`
	PartBytes     int     `json:"part_bytes"`
	DealingVerify float64 `json:"dealing_verify_us"` // decoding, commitment and own part, by one receiver
	Reshare       float64 `json:"reshare_cpu_us"`    // a whole handoff at one replica: see handoff.go
}

// WriteJSON writes the report as one indented JSON object.
func (r Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteTable writes the report for people.
func (r Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "microseconds, one core\t%s\t\n", columns(r.Rows, func(x Row) string { return fmt.Sprintf("n=%d", x.N) }))
	for _, line := range tableLines {
		fmt.Fprintf(t, "%s\t%s\t\n", line.name, columns(r.Rows, func(x Row) string { return fmt.Sprintf("%.0f", line.value(x)) }))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, f := range r.Findings {
		if _, err := fmt.Fprintln(w, "-", f); err != nil {
			return err
		}
	}
	return nil
}

func columns(rows []Row, cell func(Row) string) (out string) {
	for i, r := range rows {
		if i > 0 {
			out += "\t"
		}
		out += cell(r)
	}
	return out
}

// tableLines are the lines of the table, in its order.
var tableLines = []struct {
	name  string
	value func(Row) float64
}{
	{"quorum q", func(r Row) float64 { return float64(r.Q) }},
	{"sign", func(r Row) float64 { return r.Sign }},
	{"verify a partial signature", func(r Row) float64 { return r.PartialVerify }},
	{"combine q", func(r Row) float64 { return r.Combine }},
	{"verify a certificate", func(r Row) float64 { return r.Verify }},
	{"combine and verify", func(r Row) float64 { return r.CombineAndVerify }},
	{"the same from blst's primitives", func(r Row) float64 { return r.Primitives }},
	{"kyber tbls.Recover, BN256", func(r Row) float64 { return r.KyberRecover }},
	{"verify 16 certificates at once", func(r Row) float64 { return r.BatchVerify16 }},
	{"certificate, bytes", func(r Row) float64 { return float64(r.CertificateBytes) }},
	{"list of q Ed25519, bytes", func(r Row) float64 { return float64(r.ListBytes) }},
	{"sign with Ed25519", func(r Row) float64 { return r.ListSign }},
	{"verify it one by one", func(r Row) float64 { return r.ListVerify }},
	{"verify it as a batch", func(r Row) float64 { return r.ListBatchVerify }},
	{"list of q ECDSA P-256, bytes", func(r Row) float64 { return float64(r.ECDSAListBytes) }},
	{"verify it one by one ", func(r Row) float64 { return r.ECDSAListVerify }},
	{"deal", func(r Row) float64 { return r.Deal }},
	{"dealing, bytes", func(r Row) float64 { return float64(r.DealingBytes) }},
	{"a receiver's part, bytes", func(r Row) float64 { return float64(r.PartBytes) }},
	{"verify a dealing and a part", func(r Row) float64 { return r.DealingVerify }},
	{"whole handoff, one replica", func(r Row) float64 { return r.Reshare }},
}
