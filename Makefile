# What CI runs, verbatim. Two commands need nothing but Rust, a C++ compiler, make and Python 3 with venv:
#   make gate    build, then the main job: agreement and paired speed of Rust against the C++ reference
#   make test    every test: Rust in each feature set, C++, Python
SHELL := /bin/bash
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
CARGO ?= cargo
RUSTC ?= rustc
AARCH64_TARGET := aarch64-unknown-linux-gnu
SOURCES := $(shell find rust cpp/include cpp/src python -type f -not -name '*.so' -not -path '*/__pycache__/*' 2>/dev/null) build.rs Cargo.toml Cargo.lock pyproject.toml
GATE_FLAGS ?=
# C++ compiles on two cores; what a target prints stays together.
SIDE_BY_SIDE := -j2 --output-sync=target

.PHONY: gate test test-rust test-cpp test-python sanitize check check-aarch64 fmt crossval bench bindings deep aarch64 clean

# Exit code 3 is neutral: the evidence was not enough for a verdict. It is printed and explained, and is no failure
# of this target; 1 (fail) and 2 (unusable input) are.
gate: $(VENV)/installed
	@$(BIN)/python -m bitnet_perfgate run $(GATE_FLAGS); code=$$?; \
	if [ $$code -eq 3 ]; then \
	  echo "neutral (exit code 3): nothing was found broken, but not everything was shown to hold; the reasons stand above."; \
	  exit 0; \
	fi; exit $$code

crossval: $(VENV)/installed
	$(BIN)/python -m bitnet_perfgate crossval $(GATE_FLAGS)

test: test-rust test-cpp test-python

# All feature sets build and test; the default one carries the cross-validation tests.
test-rust: $(VENV)/tools
	$(CARGO) test --locked
	$(CARGO) test --locked --no-default-features --lib
	$(CARGO) test --locked --no-default-features --features cpu --lib
	$(CARGO) test --locked --no-default-features --features "cpu,ffi" --lib
	$(CARGO) test --locked --no-default-features --features gpu --lib

test-cpp:
	$(MAKE) -C cpp $(SIDE_BY_SIDE) test
	$(MAKE) -C cpp $(SIDE_BY_SIDE) sanitize

# The files of tests in two processes: none asserts how fast something is.
test-python: $(VENV)/installed $(VENV)/tools
	$(BIN)/python -m pytest -n 2 --dist loadfile

sanitize:
	$(MAKE) -C cpp $(SIDE_BY_SIDE) sanitize

check: $(VENV)/tools $(VENV)/installed
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --all-targets --no-default-features -- -D warnings
	$(CARGO) clippy --locked --all-targets --no-default-features --features cpu -- -D warnings
	$(CARGO) clippy --locked --all-targets --no-default-features --features gpu -- -D warnings
	$(CARGO) clippy --locked --lib --features python -- -D warnings
	$(MAKE) check-aarch64
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --locked --no-deps --lib
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files 'cpp/*.cpp' 'cpp/*.hpp' 'cpp/*.h' 'cpp/*.c')
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest bitnet_perfgate._core

# The Rust of another architecture, its kernels and all above them but what needs C++ or Python: no test here runs it, so at
# least the types must fit there. rustup installs its standard library; where that is not to be had, it is said.
check-aarch64:
	@if [ -d "$$($(RUSTC) --print target-libdir --target $(AARCH64_TARGET))" ] || rustup target add $(AARCH64_TARGET); then \
	  $(CARGO) clippy --locked --target $(AARCH64_TARGET) --lib --tests --no-default-features --features cpu -- -D warnings; \
	else echo "not checked: the crate for aarch64, because $(RUSTC) has no standard library for $(AARCH64_TARGET)"; fi

fmt: $(VENV)/tools
	$(CARGO) fmt
	$(BIN)/clang-format -i $$(git ls-files 'cpp/*.cpp' 'cpp/*.hpp' 'cpp/*.h' 'cpp/*.c')
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench:
	$(CARGO) bench --locked

# Makes the checked-in bindings anew after a change of the header.
bindings: $(VENV)/tools
	BITNET_BINDINGS=bindgen $(CARGO) build --locked
	cp "$$(ls -t target/debug/build/bitnet-perfgate-*/out/bindings.rs | head -1)" rust/backends/contract/bindings.rs

# Long campaigns that CI leaves out: every shape, batch and format of the catalogue, agreement only; the HTML page in
# a browser (needs chromium); the tests for aarch64, C++ and Rust (need cross compilers and qemu, which `make -C cpp neon` and `make aarch64` name).
deep: $(VENV)/installed $(VENV)/tools
	$(MAKE) -C cpp neon
	$(MAKE) aarch64
	$(BIN)/python -m pytest -m deep
	$(BIN)/python -m bitnet_perfgate crossval --full
	BITNET_FUZZ_ROUNDS=200000 $(CARGO) test --locked --release --test hostile_gguf

# The crate for aarch64 in an emulator: its backends, Rust and C++, against the oracle and the golden files. On one CPU, for
# the reason that cpp/Makefile gives. Where rustup has no library for aarch64, Debian's rustc-web has; its libc is that of
# the architecture itself, since threads never start on the one of the cross compiler.
AARCH64 := aarch64-linux-gnu
ONE_CPU = $(shell sed -n 's/^Cpus_allowed_list:[^0-9]*\([0-9]*\).*/\1/p' /proc/self/status)
AARCH64_RUSTC ?= $(firstword $(wildcard /usr/bin/rustc) rustc)
# Tests of the crate on an emulated CPU.
aarch64_test = RUSTC=$(AARCH64_RUSTC) CARGO_TARGET_DIR=target/aarch64 CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$(AARCH64)-gcc \
	CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="taskset -c $(ONE_CPU) qemu-aarch64 -cpu $(1)" \
	CC_aarch64_unknown_linux_gnu=$(AARCH64)-gcc CXX_aarch64_unknown_linux_gnu=$(AARCH64)-g++ \
	$(CARGO) test --locked --target $(AARCH64_TARGET)
aarch64:
	@command -v $(AARCH64)-g++ >/dev/null && command -v qemu-aarch64 >/dev/null && command -v taskset >/dev/null && test -e "$$($(AARCH64_RUSTC) --print target-libdir --target $(AARCH64_TARGET))" || { \
	  echo "needed: dpkg --add-architecture arm64 && apt-get update && apt-get install rustc-web libstd-rust-web-dev:arm64 g++-$(AARCH64) qemu-user" >&2; exit 1; }
	$(call aarch64_test,max) --lib backends -- --test-threads=1
	$(call aarch64_test,cortex-a57) --lib backends -- --test-threads=1
	$(call aarch64_test,max) --test golden_formats --test crossval --test inference -- --test-threads=1 --skip catalogue

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The package itself, built with optimisation and installed as a user would.
$(VENV)/installed: $(SOURCES) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check .
	@touch $@

# Test runners, linters and libclang for bindgen.
$(VENV)/tools: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -c 'import importlib, sys; toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "pip._vendor.tomli"); extras = toml.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; print("\n".join(extras["test"] + extras["check"]))' > $@.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $@.txt
	@touch $@

clean:
	rm -rf target $(VENV)
