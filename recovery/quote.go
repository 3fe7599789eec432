package recovery

// quoteReason tells why a quote did not verify.
func quoteReason(error) Reason { return ReasonQuote }
