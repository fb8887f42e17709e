# SPDX-License-Identifier: Apache-2.0
#
# Everything that people and CI do with this project. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

VERSION := $(shell sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
RUST_VERSION := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
SONAME := libslurm_disagg.so.0

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
PLUGINDIR ?= $(LIBDIR)/slurm
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/slurm-disagg
SHAREDIR ?= $(PREFIX)/share/slurm-disagg
BASHCOMPDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHCOMPDIR ?= $(PREFIX)/share/zsh/site-functions
FISHCOMPDIR ?= $(PREFIX)/share/fish/vendor_completions.d
DESTDIR ?=
SLURM_INCLUDE ?= /usr/include
CONFIG ?= tests/standin/configs/standin_3nodes.yaml
run check-c-examples: export CONFIG := $(CONFIG)
CLUSTER ?= /tmp/slurm-disagg-cluster
BED := tests/bed/slurm-bed

CARGO ?= cargo
RELEASE := target/release
CONTROLLER := target/controller
export CARGO_TARGET_DIR := $(CURDIR)/target

# One more than processors: tests on a real Slurm mostly wait for it.
NEXTEST := $(CARGO) nextest run --locked --workspace --all-features --no-fail-fast --test-threads=$(shell expr $$(nproc) + 1)
# Further Slurm installations to run the real-Slurm tests on, colon-separated.
SLURM_PREFIXES ?=

# What Debian calls the things that each goal needs beside Rust.
RUN_PACKAGES := gcc libc6-dev
BED_PACKAGES := slurmctld slurmd slurm-client munge slurmdbd mariadb-server libpmix-dev iproute2 procps
LINT_PACKAGES := $(RUN_PACKAGES) shellcheck libslurm-dev libclang-dev
TEST_PACKAGES := $(LINT_PACKAGES) $(BED_PACKAGES) pkg-config valgrind binutils \
	python3-yaml python3-pytest python3-pytest-timeout python3-venv lua5.1 lua5.4 zsh fish \
	etcd-server nats-server

PROGRAMS := slurm-disagg disagg-smoke
PLUGINS := spank_disagg.so $(if $(wildcard $(SLURM_INCLUDE)/slurm/slurm.h),job_submit_disagg.so) job_submit_disagg.lua
LIBRARY := libslurm_disagg.so libslurm_disagg.a slurm_disagg.pc
EXAMPLES := $(patsubst c_examples/%.c,build/c_examples/%,$(wildcard c_examples/*.c))

.PHONY: all
all: $(addprefix build/,$(PROGRAMS) $(PLUGINS) $(LIBRARY)) ## build everything into build/

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- building
#
# cargo knows best what is out of date, so it is asked every time; `install -C`
# leaves a file alone that has not changed. Each artefact has an invocation of
# its own: built together, cargo would give each the features of all.
#
# cargo keeps one shared object per library and profile, whatever its features.
# So that no invocation rebuilds what another one just built, a library that is
# needed with different features is built in one directory per set: the
# controller's plugin here, and everything with all features for the benchmarks.

.PHONY: FORCE
FORCE:

build:
	@mkdir -p $@

.PHONY: rust
rust:
	@command -v $(CARGO) >/dev/null || { \
		echo 'make: there is no Rust toolchain here; install Rust $(RUST_VERSION) or later with rustup' >&2; exit 1; }

# Linked whole: it starts in two thirds of the time, and runs on nodes and in containers with another
# libc. The flags are for this program alone, so that no build script or macro gets them.
build/slurm-disagg: FORCE | build rust
	@$(CARGO) rustc --locked --release -p slurm-disagg --features cli --bin slurm-disagg \
		-- -C target-feature=+crt-static -C relocation-model=static
	@install -C $(RELEASE)/slurm-disagg $@

build/disagg-smoke: FORCE | build rust
	@$(CARGO) build --locked --release -p slurm-sim --bin disagg-smoke
	@install -C $(RELEASE)/disagg-smoke $@

# Small: each sbatch, srun and slurmstepd loads it. A plan takes some percent longer to make.
build/spank_disagg.so: FORCE | build rust
	@$(CARGO) build --locked --release -p spank-disagg --config 'profile.release.opt-level="z"'
	@install -C -m 755 $(RELEASE)/libspank_disagg.so $@

build/job_submit_disagg.so: FORCE | build rust
	@$(CARGO) build --locked --release -p job-submit-disagg --target-dir $(CONTROLLER)
	@nm -D --defined-only $(CONTROLLER)/release/libjob_submit_disagg.so | grep -q ' job_submit$$' || { \
		echo 'make: $(SLURM_INCLUDE)/slurm/slurm.h is there but could not be bound: apt-get install libclang-dev' >&2; exit 1; }
	@install -C -m 755 $(CONTROLLER)/release/libjob_submit_disagg.so $@

build/job_submit_disagg.lua: plugins/job_submit/job_submit_disagg.lua | build
	@install -m 644 $< $@

# The link argument reaches the shared object only: an archive is not linked.
build/libslurm_disagg.so build/libslurm_disagg.a &: FORCE | build rust
	@$(CARGO) rustc --locked --release -p slurm-disagg --lib --no-default-features --features capi --crate-type cdylib,staticlib \
		-- -C link-arg=-Wl,-soname,$(SONAME)
	@install -C -m 755 $(RELEASE)/libdisagg.so build/libslurm_disagg.so
	@install -C -m 644 $(RELEASE)/libdisagg.a build/libslurm_disagg.a
	@ln -sfn libslurm_disagg.so build/$(SONAME)

# usage: $(call pc,libdir,includedir)
define pc
libdir=$(1)
includedir=$(2)

Name: slurm_disagg
Description: Plans of disaggregated LLM-serving tests on Slurm
Version: $(VERSION)
Libs: -L$${libdir} -lslurm_disagg
Libs.private: -lutil -lrt -lpthread -lm -ldl -lc
Cflags: -I$${includedir}
endef

build/slurm_disagg.pc: Makefile Cargo.toml | build
	$(file >$@,$(call pc,$(CURDIR)/build,$(CURDIR)/include))

build/c_examples/%: c_examples/%.c include/slurm_disagg.h build/libslurm_disagg.so build/slurm_disagg.pc
	@mkdir -p $(@D)
	@$(CC) -std=c11 -g -Wall -Wextra -Werror -o $@ $< $$(PKG_CONFIG_PATH=build pkg-config --cflags --libs slurm_disagg) \
		-Wl,-rpath,$(CURDIR)/build

# ---- running

.PHONY: run
run: ## plan and simulate a test without any Slurm; CONFIG=path for one of your own
	@scripts/need-packages $(RUN_PACKAGES)
	@$(MAKE) $(addprefix build/,$(PROGRAMS) spank_disagg.so)
	@build/disagg-smoke "$$CONFIG"

.PHONY: cluster
cluster: ## start a small real Slurm with the plugins and open a shell in it
	@scripts/need-packages $(TEST_PACKAGES)
	@$(MAKE) all
	@scripts/cluster-shell $(CLUSTER)

.PHONY: cluster-down
cluster-down: ## end what `make cluster` started
	@$(BED) down --rm $(CLUSTER)

# ---- testing

.PHONY: test
test: ## set everything up for the tests and run them; TESTS='FILTER' (of nextest) for some, SLURM_PREFIXES=DIR:DIR for more Slurms
	@scripts/need-packages $(TEST_PACKAGES)
	@# To link what is installed takes one core for minutes: the tests are built meanwhile.
	@$(CARGO) test --locked --workspace --all-features --no-run --quiet & tests=$$!; \
		$(MAKE) nextest all; status=$$?; wait $$tests && exit $$status
	@$(MAKE) check-shell check-exports check-c-examples
	@echo "== tests"
	@$(CARGO) test --locked --workspace --all-features --doc --quiet
	@$(NEXTEST) $(if $(TESTS),--filterset "$(TESTS)")
	@for prefix in $(subst :, ,$(SLURM_PREFIXES)); do \
		echo "== tests on the Slurm below $$prefix"; \
		$(MAKE) test-on-slurm SLURM_PREFIX="$$prefix" SLURM_INCLUDE="$$prefix/include"; \
	done

.PHONY: test-engines
test-engines: nextest ## tests with real engines on CPUs, which `make test` leaves out: 6 GB of disk, ten minutes
	@scripts/need-packages $(TEST_PACKAGES)
	@$(NEXTEST) --run-ignored only --filterset 'test(/^vllm::/)'

# The controller's plugin is built for each release; the SPANK plugin is the same file everywhere.
.PHONY: test-on-slurm
test-on-slurm: $(filter build/job_submit_disagg.so,$(addprefix build/,$(PLUGINS)))
	@SLURM_PREFIX="$(SLURM_PREFIX)" $(NEXTEST) --filterset "binary(/^real_/)$(if $(TESTS), & ($(TESTS)))"

# Without optimisation the tool builds in a third of the time, and is as good here.
.PHONY: nextest
nextest: | rust
	@$(CARGO) nextest --version >/dev/null 2>&1 || { \
		echo '== cargo-nextest is missing: installing it, which takes some minutes'; \
		CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
			CARGO_TARGET_DIR=$(CURDIR)/target/nextest $(CARGO) install --locked cargo-nextest && rm -rf target/nextest; }

.PHONY: lint
lint: ## format, clippy, documentation, shell, C, dependencies
	@scripts/need-packages $(LINT_PACKAGES)
	@echo "== rustfmt"
	@$(CARGO) fmt --all --check
	@echo "== clippy"
	@$(CARGO) clippy --locked --workspace --all-targets --all-features -- -D warnings
	@echo "== rustdoc"
	@RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --all-features --no-deps --quiet
	@$(MAKE) check-shell check-c check-dependencies

.PHONY: check-shell
check-shell:
	@echo "== shellcheck"
	@scripts/sources-of sh | xargs -0 -r shellcheck

.PHONY: check-c
check-c:
	@echo "== C"
	@scripts/sources-of c | xargs -0 -r $(CC) -std=gnu11 -Wall -Wextra -Werror -fsyntax-only -Iinclude -I$(SLURM_INCLUDE)

.PHONY: check-dependencies
check-dependencies:
	@echo "== dependencies"
	@scripts/check-dependencies

.PHONY: check-exports
check-exports: $(addprefix build/,$(filter %.so,$(PLUGINS) $(LIBRARY)))
	@echo "== exported symbols"
	@scripts/check-exports $^

.PHONY: check-c-examples
check-c-examples: $(EXAMPLES)
	@echo "== C examples under valgrind"
	@for example in $(EXAMPLES); do \
		echo "$$example"; \
		valgrind --quiet --error-exitcode=99 --leak-check=full --show-leak-kinds=all --errors-for-leak-kinds=all \
			$$example "$$CONFIG" >$$example.out || { cat $$example.out; exit 1; }; \
		test -s $$example.out; \
	done

.PHONY: bench
bench: | rust ## run the benchmarks
	@scripts/need-packages $(TEST_PACKAGES)
	@$(MAKE) all
	@$(CARGO) bench --locked --workspace --all-features --target-dir target/bench

.PHONY: header
header: | rust ## write include/slurm_disagg.h anew (a test fails when it is out of date)
	@UPDATE_HEADER=1 $(CARGO) test --locked -p slurm-disagg --features capi --test header

# ---- attacking
#
# Both need what only a nightly toolchain has; RUSTC_BOOTSTRAP=1 lets the stable one do it.

FUZZ_TARGETS ?= $(shell sed -n '/^\[\[bin\]\]/,/^name/s/^name = "\(.*\)"/\1/p' fuzz/Cargo.toml)
FUZZ := RUSTC_BOOTSTRAP=1 $(CARGO) fuzz
FUZZ_OPTIONS := --target-dir $(CURDIR)/target/fuzz --sanitizer none

.PHONY: fuzz
fuzz: | rust build/slurm-disagg ## fuzz each target for SECONDS=60; FUZZ_TARGETS='yaml_plan junit' for some
	@$(FUZZ) --version >/dev/null 2>&1 || { \
		echo '== cargo-fuzz is missing: installing it, which takes some minutes'; \
		CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_TARGET_DIR=$(CURDIR)/target/fuzz $(CARGO) install --locked cargo-fuzz; }
	@$(FUZZ) build $(FUZZ_OPTIONS)
	@scripts/fuzz-seeds fuzz/corpus
	@for target in $(FUZZ_TARGETS); do \
		echo "== $$target"; \
		mkdir -p fuzz/corpus/$$target tests/fuzz_inputs/$$target; \
		$(FUZZ) run $(FUZZ_OPTIONS) $$target fuzz/corpus/$$target tests/fuzz_inputs/$$target -- \
			-max_total_time=$(or $(SECONDS),60) -max_len=16384 -timeout=10 -rss_limit_mb=1024 -dict=fuzz/yaml.dict \
			-print_final_stats=1 -verbosity=0 || exit 1; \
	done

.PHONY: sanitize
sanitize: | rust ## the C library and spank_disagg.so under the address and thread sanitizers, and Miri
	@scripts/sanitize

# ---- installing

#
# It builds nothing: `sudo make install` has no Rust toolchain to do it with.

.PHONY: install
install: ## install what `make` built below PREFIX (/usr/local); also LIBDIR, PLUGINDIR, DESTDIR
	@test -e build/slurm_disagg.pc || { echo 'make install: nothing is built yet; run make first' >&2; exit 1; }
	install -d $(addprefix $(DESTDIR),$(PREFIX)/bin $(PREFIX)/include $(LIBDIR)/pkgconfig $(PLUGINDIR) \
		$(MANDIR) $(DOCDIR) $(SHAREDIR)/python $(BASHCOMPDIR) $(ZSHCOMPDIR) $(FISHCOMPDIR))
	install -m 755 build/slurm-disagg $(DESTDIR)$(PREFIX)/bin/
	build/slurm-disagg man $(DESTDIR)$(MANDIR)
	build/slurm-disagg completions bash >$(DESTDIR)$(BASHCOMPDIR)/slurm-disagg
	build/slurm-disagg completions zsh >$(DESTDIR)$(ZSHCOMPDIR)/_slurm-disagg
	build/slurm-disagg completions fish >$(DESTDIR)$(FISHCOMPDIR)/slurm-disagg.fish
	install -m 755 build/libslurm_disagg.so $(DESTDIR)$(LIBDIR)/libslurm_disagg.so.$(VERSION)
	ln -sfn libslurm_disagg.so.$(VERSION) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sfn $(SONAME) $(DESTDIR)$(LIBDIR)/libslurm_disagg.so
	install -m 644 build/libslurm_disagg.a $(DESTDIR)$(LIBDIR)/
	install -m 644 include/slurm_disagg.h $(DESTDIR)$(PREFIX)/include/
	install -m 644 python/slurm_disagg.py $(DESTDIR)$(SHAREDIR)/python/
	$(file >build/installed.pc,$(call pc,$(LIBDIR),$(PREFIX)/include))
	install -m 644 build/installed.pc $(DESTDIR)$(LIBDIR)/pkgconfig/slurm_disagg.pc
	install -m 755 build/spank_disagg.so $(wildcard build/job_submit_disagg.so) $(DESTDIR)$(PLUGINDIR)/
	install -m 644 build/job_submit_disagg.lua $(DESTDIR)$(SHAREDIR)/
	install -m 644 README*.md docs/*.md docs/site.yaml.example plugins/job_submit/disagg.conf.example $(DESTDIR)$(DOCDIR)/
	@if [ -z '$(DESTDIR)' ] && [ "$$(id -u)" = 0 ] && command -v ldconfig >/dev/null; then ldconfig; fi
	@echo 'make install: plugstack.conf needs a line with spank_disagg.so (docs/admin.md)'

# What there is to delete is what an installation elsewhere has.
.PHONY: uninstall
uninstall: ## delete what `make install` with the same variables installed
	@staged=$$(mktemp -d); trap 'rm -rf "$$staged"' EXIT; \
	$(MAKE) install DESTDIR="$$staged" >/dev/null; \
	(cd "$$staged" && find . -depth ! -type d -printf '%P\0') | while IFS= read -r -d '' file; do \
		rm -fv "$(DESTDIR)/$$file"; \
	done; \
	rmdir --ignore-fail-on-non-empty $(addprefix $(DESTDIR),$(SHAREDIR)/python $(SHAREDIR) $(DOCDIR)) 2>/dev/null || true

.PHONY: clean
clean: ## delete build/ (cargo's target/ stays)
	rm -rf build
