module github.com/reseal-bft/reseal/keystore/judges

go 1.26.0

replace github.com/reseal-bft/reseal => ../..

require (
	github.com/google/go-eventlog v0.0.2
	github.com/reseal-bft/reseal v0.0.0-00010101000000-000000000000
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/google/go-tpm v0.9.8 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)
