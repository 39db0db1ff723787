# The commands of this project. `make` alone lists them.

# ONNX Runtime reports to its maker otherwise. The agent sees to it itself; bench and eval are told here.
export ORT_DISABLE_TELEMETRY := 1

BINARIES := $(or $(CARGO_TARGET_DIR),target)/release

.PHONY: help setup demo test bench eval fuzz

help: ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1  \t/p' Makefile | expand -t 16

setup: ## install what is missing: Debian packages, ONNX Runtime, footage, AsyncAPI's parser
	@tests/setup.sh

demo: ## watch a village live; own pictures: CLIP=/path/to/own.mp4 or CAMERA=rtsp://... (CAMERA_USER, CAMERA_PASSWORD)
	@tests/setup.sh packages runtime $(if $(CLIP)$(CAMERA),,footage)
	cargo build --release --locked -p sharp-eyes-agent -p sharp-eyes-tests \
	    --bin sharp-eyes-agent --bin camera-simulator --bin demo
	@$(BINARIES)/demo

test: ## everything: format, lints, unit, property and end-to-end tests
	@tests/setup.sh
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@rm -f .cache/skipped
	cargo test --workspace --locked
	@tests/tested.sh

bench: ## what the agent costs, beside what it cannot cost less than; one part: BENCH=cameras, delivery, updates or fleet; as JSON too: BENCH_JSON=file.json
	@tests/setup.sh packages runtime footage
	cargo build --release --locked -p sharp-eyes-agent -p sharp-eyes-tests --bins
	@$(BINARIES)/bench

eval: ## how well objects are found, followed and alarmed about; one part: EVAL=detection, tracking or alerts; another model: EVAL_MODEL=file.onnx; as JSON too: EVAL_JSON=file.json
	@tests/setup.sh packages runtime footage
	cargo build --release --locked -p sharp-eyes-tests --bin eval
	@$(BINARIES)/eval

FUZZ ?= access_units bundle commands configuration golden manifest patch release tensors
SECONDS ?= 60

fuzz: ## random input to every parser for a minute each, with cargo-fuzz and a nightly Rust; one: FUZZ=manifest; longer: SECONDS=600
	@tests/setup.sh packages
	@for target in $(FUZZ); do \
	    mkdir -p tests/fuzz/corpus/$$target && \
	    cargo +nightly fuzz run --fuzz-dir tests/fuzz $$target \
	        tests/fuzz/corpus/$$target config models/builtin -- -max_total_time=$(SECONDS) -timeout=10 || exit 1; \
	done
