# What a developer runs. ARGS passes flags on: make demo ARGS='--f 2 --keep'

TOOL := go tool -modfile=$(CURDIR)/.ci/tools/go.mod
# The directories of all modules: the library, and the nested ones that keep heavy dependencies away from it.
MODULES = $(sort $(dir $(shell find . -name go.mod -not -path './.ci/*')))

DEMO_PACKAGES := swtpm swtpm-tools
TEST_PACKAGES := $(DEMO_PACKAGES) tpm2-tools softhsm2 opensc libnss3 libnss3-tools opencryptoki libtpm2-pkcs11-1

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Run a cluster that heals itself, on this machine, in under two minutes
	@.ci/packages $(DEMO_PACKAGES)
	go run ./cmd/reseal demo $(ARGS)

.PHONY: build
build: ## Build bin/reseal
	go build -o bin/reseal ./cmd/reseal

# RERUN are flags for tests that fail: CI gives those that fail seldom a second chance, and prints them.
GOTESTSUM := $(TOOL) gotestsum --format pkgname-and-test-fails $(RERUN)
# The core has no goroutines, as the tests of internal/lint see to: the race detector would only slow its searches down.
CORE := github.com/reseal-bft/reseal/bft
.PHONY: test
test: ## Run the whole test suite of all modules, with the race detector
	@.ci/packages $(TEST_PACKAGES)
	@set -e; for module in $(MODULES); do \
		echo "== $$module"; \
		(cd $$module && $(GOTESTSUM) --packages "$$(go list ./... | grep -vx $(CORE))" -- -race -count=1 -timeout 20m); \
	done
	@echo "== the core"
	@$(GOTESTSUM) --packages $(CORE) -- -count=1 -timeout 20m
	@echo "== whole nodes in virtual time"
	@$(GOTESTSUM) --packages "./internal/wholesim ./bft/scheme" -- -tags checksums -count=1

.PHONY: planted
planted: ## Plant each bug there is a rule against, and see that the tests and the simulators find it
	@.ci/packages $(TEST_PACKAGES)
	$(TOOL) gotestsum --format pkgname-and-test-fails -- -tags mutants -count=1 ./bft ./bft/sim ./bft/replica ./internal/trace ./hsm ./recovery ./recovery/attest ./recovery/governance ./recovery/handoff ./recovery/recoverytest ./keystore/tpm

.PHONY: test-fast
test-fast: ## Run the library's tests without the race detector, cached
	go test ./...

.PHONY: lint
lint: ## Run gofmt, go vet and staticcheck on all modules; the architecture is checked by the tests of internal/lint
	@unformatted=$$(find . -name '*.go' -not -path './.git/*' | xargs gofmt -l); \
		if [ -n "$$unformatted" ]; then echo "run gofmt -w on:"; echo "$$unformatted"; exit 1; fi
	@set -e; for module in $(MODULES); do \
		(cd $$module && go vet ./... && $(TOOL) staticcheck ./...); \
	done

.PHONY: bench
bench: ## Run the Go benchmarks of all modules once
	@set -e; for module in $(MODULES); do \
		(cd $$module && go test -run '^$$' -bench . -benchmem ./...); \
	done

.PHONY: sim-long
sim-long: ## Run ten thousand seeds of the simulator with every adversary and fault
	go run ./cmd/reseal sim --seeds 10000 $(ARGS)

.PHONY: sim-coverage
sim-coverage: ## Print the branches of the core that campaigns of all sizes up to seven replicas do not reach
	go run ./cmd/reseal sim --coverage --n-max 7 --seeds 300 $(ARGS)

.PHONY: sim-whole
sim-whole: ## Run a hundred seeds of whole nodes in virtual time; it tells how many it does in an hour
	go run ./cmd/reseal sim --whole --seeds 100 $(ARGS)

.PHONY: drill
drill: ## Rehearse all attacks and accidents on clusters of this machine
	@.ci/packages $(TEST_PACKAGES)
	go run ./cmd/reseal drill all $(ARGS)

.PHONY: soak
soak: ## Run a cluster for an hour at four fifths of what it bears, with bad clients, kills and rounds: nothing may grow; ARGS='--duration 10m'
	go run ./cmd/reseal drill soak $(ARGS)

SEED ?= 1
SEEDS ?= 200
KEYSTORE ?= file
.PHONY: intruder
intruder: ## Play SEEDS seeds of an intruder, from SEED on, on KEYSTORE (file, softhsm or swtpm), and judge what it got; SEEDS=1 replays one
	@.ci/packages $(DEMO_PACKAGES) softhsm2
	go test ./recovery/recoverytest -run Intruder -count=1 -timeout 0 -v -seed $(SEED) -seeds $(SEEDS) -keystore $(KEYSTORE) $(ARGS)

INTRUDER := go test -count=1 -timeout 20m -tags checksums ./recovery/recoverytest -run Intruder -v
.PHONY: intruder-ci
intruder-ci: ## Play the seeds of the intruder that every submission has to hold against; votes are checksums, which halves the cost
	$(INTRUDER) -seeds 200 -at-once 8
	$(INTRUDER) -seeds 20 -keystore softhsm
	$(INTRUDER) -seeds 8 -keystore swtpm

.PHONY: state
state: ## Fill the built-in store with 10 GiB under a memory limit of 1 GiB; ARGS='-fill 1024 -memory 200' (MiB) for less
	go test ./bft/kv -run MoreThanMemory -count=1 -timeout 0 -v -fill 10240 -memory 1024 $(ARGS)

.PHONY: fuzz
fuzz: ## Fuzz every decoder and socket, FUZZTIME each (30s); ARGS='bft/transport FuzzGenesis' for some
	@.ci/fuzz $(ARGS)

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin out
