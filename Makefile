# make help says what there is.
SHELL := /bin/bash
CARGO ?= cargo
# Where rustup puts cargo, for shells that have not read its environment; sbin, where Debian puts named.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin
FUZZ_SECONDS ?= 60
# What `make bench` is told: BENCH='--workload cached --rounds 3'. `make bench BENCH=--help` says what there is.
BENCH ?=
# Beginnings of names of cases for `make lab` and `make lab-shell`.
CASE ?=
SCRIPTS := .ci/run tests/systemd/boot.sh tests/newcomer/run $(addprefix scripts/, ask-static build-image build-program debian-packages fuzz fuzz-rustc install-release-deps install-test-deps kubernetes-tools link-static-pie release \
	release-build release-check supply-chain test-all)

.PHONY: help build image release release-check run test check supply-chain bench bench-instructions faults attacks simulation lab lab-quick lab-soak lab-list lab-shell lab-program newcomer fuzz

help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 26

build: ## Build the program, optimised: target/release/nodelocaldns
	$(CARGO) build --release --locked

image: ## Build the container image nodelocaldns:VERSION (needs buildah)
	scripts/build-image

release: ## Build what a release has, for amd64 and arm64: target/release-VERSION (docs/install/verify.md)
	scripts/release-build

release-check: ## Try the program for ARM64 under qemu, and build the release again elsewhere: the same octets?
	scripts/release-check --again

run: ## Serve on 127.0.0.1:1053 from the built-in Corefile
	$(CARGO) run --locked

test: ## Install what the tests need, then check and test everything
	scripts/install-test-deps
	$(MAKE) check
	scripts/supply-chain
	scripts/test-all
	target/release/lab run --quick
	target/release/bench instructions
	target/release/bench --check
	scripts/fuzz --quick --seconds 20

.PHONY: docs docs-serve
# mkdocs is a package of Debian's, which installs in seconds; mdBook would have to be compiled.
docs: ## Make the site of docs/ (mkdocs.yml) in target/site; a link that leads nowhere fails it
	mkdocs build --strict

docs-serve: ## Show that site at http://127.0.0.1:8000, anew after each change
	mkdocs serve --watch src --watch scripts/site.py

supply-chain: ## Licences, sources and doubled versions of all crates, against deny.toml
	scripts/supply-chain

check: ## Formatting, lints, documentation, scripts
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --exclude nodelocaldns-fuzz --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" $(CARGO) doc --locked --workspace --exclude nodelocaldns-fuzz --no-deps --document-private-items
	@if command -v shellcheck >/dev/null; then echo "shellcheck $(SCRIPTS)"; shellcheck $(SCRIPTS); fi

bench: ## Measure beside other DNS caches (benches/README.md): make bench BENCH='--workload cached'
	scripts/install-test-deps
	$(CARGO) build --release --locked --workspace --exclude nodelocaldns-fuzz
	target/release/bench $(BENCH)

bench-instructions: ## Count the instructions of a hit against benches/baseline.json; BENCH=--update makes that the baseline
	scripts/install-test-deps
	$(CARGO) build --release --locked --workspace --exclude nodelocaldns-fuzz
	target/release/bench instructions $(BENCH)

faults: ## Measure the fault table of docs/faults.md on this machine, as Markdown (the row about memory needs root)
	$(CARGO) test --release --locked --test faults --no-run
	@echo '| fault | reference | nftables, 2,000/s | nftables, 10,000/s | iptables, 2,000/s | iptables, 10,000/s |'
	@echo '| --- | --- | --- | --- | --- | --- |'
	@set -o pipefail; for rows in processes answers limits config node eaten upstream; do \
	    FAULTS=whole $(CARGO) test --release --locked --quiet --test faults -- --nocapture --test-threads=1 "$$rows::" | sed -n '/^| /p' || exit; \
	done

attacks: ## Attack the program and print what others lose, the table of docs/attacks.md; NODE_CACHE=PATH has the reference beside it (some rows need root)
	$(CARGO) test --release --locked --test attacks --no-run
	@$(CARGO) test --release --locked --quiet --test attacks -- --ignored --nocapture row::head | sed -n '/^|/p'
	@set -o pipefail; broken=0; for rows in answers flights others misses connections pours sizes queries http encrypted rights memory together; do \
	    ATTACKS=whole $(CARGO) test --release --locked --quiet --test attacks -- --ignored --nocapture --test-threads=1 "$$rows::" \
	        2>target/attacks.log | sed -un '/^| /p' || broken=1; \
	    sed -n '/does not hold:$$/,/^$$/{/^$$/!p}' target/attacks.log >&2; \
	done; exit $$broken

newcomer: ## Play the newcomer in a bare Debian, with a watch: README, chart, image, a node (tests/newcomer/run says what it needs)
	tests/newcomer/run

lab: lab-program ## Boot real nodes under qemu and run all cases there, or CASE='link/ …' (tests/lab/README.md)
	target/release/lab run $(CASE)

lab-quick: lab-program ## A few of the lab's cases, of two minutes
	target/release/lab run --quick

lab-soak: lab-program ## An hour of a node under load, with something going wrong every 20 s
	target/release/lab run soak/an_hour

lab-list: lab-program ## Say which cases the lab has
	target/release/lab list

lab-shell: lab-program ## A prompt inside the lab's machine, or inside that of CASE=name
	target/release/lab shell $(CASE)

# Optimised: a processor that is emulated has enough to do.
lab-program:
	$(CARGO) build --release --locked --package nodelocaldns --package nodelocaldns-lab --bins

simulation: ## Ten thousand runs of watchdog and rules under random faults; make test has three thousand
	SIMULATION=whole $(CARGO) test --release --locked --test simulation

fuzz: ## Fuzz every target for FUZZ_SECONDS each, two at a time (fuzz/README.md)
	scripts/fuzz --seconds $(FUZZ_SECONDS)
