# ClaudeFS: `make help` lists what can be made. Sources are found by wildcard, so adding a file needs
# no edit here; the rules for objects, libraries and programs are in mk/build.mk, `install` in
# mk/install.mk, and any other mk/*.mk a subsystem brings along is read as well.

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
SHELL := /bin/bash

VARIANT ?= release
ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(VARIANT),fuzz)
CC := clang
endif
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc)
endif

# Where this variant's objects, libraries and programs go; clang's stand beside gcc's. Who shares a checkout
# with others can have a place of their own with B=build/name (the libraries of `make deps` stay in build/deps).
B ?= build
export B
O := $(B)/$(VARIANT)$(if $(findstring clang,$(CC)),$(if $(filter fuzz,$(VARIANT)),,-clang))

# Every goal that compiles reads deps.mk; when it is missing or old, make first makes it, then starts over.
no_deps := help clean distclean down check-includes kmod install-dkms
ifneq ($(filter-out $(no_deps),$(or $(MAKECMDGOALS),all)),)
include build/deps/deps.mk
build/deps/deps.mk: scripts/deps.sh
	scripts/deps.sh
endif

include mk/build.mk
include mk/install.mk
include $(filter-out mk/build.mk mk/install.mk,$(wildcard mk/*.mk))

.PHONY: all everything deps up down test test-tiers tests-build check-build check-includes bench bench-scale sim fuzz install clean distclean help

all: $(PROGRAMS) $(BENCHES) $(MANPAGES)		## programs and manual pages (the default)

everything: all $(LIBS) $(TEST_PROGRAMS)	## all, and every library and test program of this VARIANT

deps:						## packages and static libraries the build needs
	scripts/deps.sh

up:						## build, format a store, start a server, mount it at ./mnt
	@$(MAKE) --no-print-directory VARIANT=release all >&2
	@scripts/up.sh

down:						## unmount ./mnt and stop the server; data stays
	@scripts/down.sh

# The last line is always "N passed, N failed, N skipped".
test:						## all tests; T=pattern for those whose name matches
	@scripts/deps.sh test && $(MAKE) --no-print-directory tests-build || \
		{ echo "the build failed"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
	@selftests/run.sh $(if $(T),'$(T)')

test-tiers:					## the POSIX, model, coherence, kill and crash suites in every tier, at full length
	@T_LONG=1 $(MAKE) --no-print-directory test T='@|^vm/(tiers|bpf)|^tiers/'

tests-build:
	@$(MAKE) --no-print-directory VARIANT=release CC=gcc everything
	@$(MAKE) --no-print-directory VARIANT=asan CC=gcc everything
	@$(MAKE) --no-print-directory VARIANT=fuzz everything
	@$(MAKE) --no-print-directory VARIANT=tsan all

check-build:					## everything, with gcc and with clang, without a warning
	@$(MAKE) --no-print-directory VARIANT=release CC=gcc everything
	@$(MAKE) --no-print-directory VARIANT=release CC=clang everything

check-includes:					## the include graph runs one way
	@scripts/check-includes.sh

bench: all					## benchmarks: tools/bench/run.sh ARGS=...
	@if [ -x tools/bench/run.sh ]; then T_BIN=$(O)/bin tools/bench/run.sh $(ARGS); \
	else echo "no tools/bench/run.sh; programs: $(or $(BENCHES),none)"; fi

bench-scale: all				## memory and start-up time with a million files: ARGS="-n 100000"
	@T_BIN=$(O)/bin tools/bench/scale.sh $(ARGS)

bench-kernel: all				## what the tiers give: tools/bench/kernel.sh ARGS=...
	@T_BIN=$(O)/bin tools/bench/kernel.sh $(ARGS)

sim: $(SIM)					## the simulator: SEED=n, SEEDS=n, ARGS="--trace ..."
	@$(SIM) $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) $(ARGS)

FUZZ_SECONDS ?= 60
fuzz:						## every fuzz target, FUZZ_SECONDS=60 each
	@$(MAKE) --no-print-directory VARIANT=fuzz everything
	@FUZZ_SECONDS=$(FUZZ_SECONDS) selftests/run.sh fuzz/

clean:						## what was compiled; keeps build/deps and the data in build/up
	rm -rf $(addprefix $(B)/,release* asan* tsan* fuzz* bpf man test-run)

distclean: clean				## clean, and the libraries of `make deps`
	rm -rf build/deps build/dl build/kmod

help:						## this text
	@echo 'make [target] [VARIANT=release|asan|tsan] [CC=gcc|clang] [V=1] [B=build/name]'
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) mk/*.mk | \
		while IFS=$$'\t' read -r t d; do printf '  %-15s %s\n' "$$t" "$$d"; done
