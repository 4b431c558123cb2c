# Every way to build and try bpfseal. `make` alone explains.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo

# Debian packages that building and testing need, and what for.
PACKAGES := clang llvm gcc make pkg-config libelf-dev zlib1g-dev linux-libc-dev \
	qemu-system-x86 cpio zstd lz4 xz-utils binutils openssl debian-archive-keyring ca-certificates python3-venv

help: ## this text
	@echo 'bpfseal: make TARGET'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18
	@echo
	@echo 'On a fresh Debian 12 as root: make demo (the story, 4 minutes after building)'
	@echo 'or make test (everything). KERNELS="6.1 6.12 7.2 7.3" chooses the kernels of make test.'

deps: ## install the Debian packages that are missing (as root, with apt)
	@tests/lab/deps.sh $(PACKAGES)

fetch: deps ## fetch the tools and kernels that the tests use into ~/.cache/bpfseal, installing nothing
	@tests/lab/fetch.sh all
	@# A build leaves out packages that only other platforms need; tests look at all of them.
	$(CARGO) fetch --locked

build: deps ## build everything; the enforcer as one static file
	$(CARGO) build --release --workspace --locked

demo: build ## tell the story on real input and a real kernel
	@tests/demo/run

test: fetch build ## unit tests, vectors, end to end, real clients, kernels in VMs
	@tests/lab/test.sh

bench: fetch build ## measure against cosign, and what the gate costs
	$(CARGO) bench --workspace --locked --bench '*'

bench-registry: fetch build ## measure the registry beside Debian's docker-registry, in turns
	$(CARGO) bench --workspace --locked --bench registry

lint: ## format and clippy, with warnings as errors
	$(CARGO) fmt --check
	$(CARGO) clippy --release --workspace --all-targets --locked -- -D warnings

soak: fetch build ## the kernel tests again and again, all four kernels (ROUNDS=10), with 200 kills and a crowd; 100 kills of the registry
	BPFSEAL_SOAK=100 $(CARGO) test --release --locked -p bpfseal-registry --test crash -- --nocapture
	@for round in $$(seq $(or $(ROUNDS),10)); do \
		echo "round $$round"; \
		KILLS=200 KERNELS='6.1 6.12 7.2 7.3' $(CARGO) test --release --workspace --locked --test kernel; \
	done

fuzz: deps ## run each fuzz target for a minute (SECONDS_EACH=60); cargo-fuzz goes into the cache
	@tests/lab/fuzz.sh

.PHONY: help deps fetch build demo test bench bench-registry lint soak fuzz
