# Everything here works from a fresh clone: the first target makes the virtual environment itself.
#
#   make demo [FAULT=none|cpu_throttled|...] [FRONT=threads|asyncio]
#   make test        the test suite            make test-slow   live fault matrices, minutes
#   make lint        formatting and types      make clean       remove what make made
#   make bench-overhead [FRONT=...]            what perfkit costs its target, some 15 minutes
#   make bench-cost                            what perfkit costs the host, some 10 minutes
#   make bench-ssh                             how soon another host's report comes, some 5 minutes
#   make bench-histogram                       how fast histograms count, beside others, 3 minutes
#   make bench-stacks                          how fast profiles are added, beside others, 2 minutes
#   make bench-shared-histogram                what a histogram that others read costs, 10 seconds
#   make bench-foreign                         how often it is right on servers of others, an hour

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV ?= .venv
BIN := $(VENV)/bin
FRONT ?= threads
FAULT ?=
OUT ?= demo-out
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# An installed interpreter may be a shim that fails: only one that runs and is new enough counts.
PYTHON ?= $(shell for each in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$each && break; done)

CAUSES := $(filter-out _%,$(basename $(notdir $(wildcard perfkit/demo/faults/*.py))))
FRONTS := $(filter-out __init__,$(basename $(notdir $(wildcard perfkit/demo/fronts/*.py))))
NATIVE := $(wildcard native/*.c native/*.h) native/CMakeLists.txt

.PHONY: demo test test-slow lint venv check-tools check-demo bench-overhead bench-cost bench-ssh \
	bench-foreign bench-histogram bench-shared-histogram bench-stacks clean

demo: check-demo $(VENV)/.installed
	@$(BIN)/python -m perfkit.demo run --diagnose --out $(OUT) --front $(FRONT) \
		$(if $(FAULT),--fault $(FAULT))

test: $(VENV)/.tests
	@$(BIN)/python -m pytest

test-slow: $(VENV)/.tests
	@$(BIN)/python -m pytest -m slow

lint: $(VENV)/.lint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pyright --pythonpath $(BIN)/python

bench-overhead: $(VENV)/.tests
	@$(BIN)/python tests/bench/overhead.py --front $(FRONT)

bench-cost: $(VENV)/.tests
	@$(BIN)/python tests/bench/cost.py

bench-ssh: $(VENV)/.tests
	@$(BIN)/python tests/bench/ssh.py

bench-foreign: $(VENV)/.tests
	@$(BIN)/python tests/bench/foreign.py

# Peers one by one: of one that cannot be had, the table says so.
bench-histogram: $(VENV)/.tests
	@for each in hdrhistogram prometheus-client ddsketch fast-histogram; do \
		$(PIP) install "$$each" || echo "perfkit: $$each cannot be installed" >&2; done
	@$(BIN)/python tests/bench/histogram.py

bench-stacks: $(VENV)/.tests
	@$(PIP) install pyarrow || echo "perfkit: pyarrow cannot be installed" >&2
	@$(BIN)/python tests/bench/stacks.py

bench-shared-histogram: $(VENV)/.tests
	@$(BIN)/python tests/bench/shared_histogram.py

venv: $(VENV)/.installed
	@echo "perfkit: $(VENV) is ready"

# One line for the first tool that is missing, with what installs it.
check-tools:
	@fail() { echo "perfkit: $$1" >&2; exit 2; }; \
	[[ "$$(uname -sm)" == "Linux x86_64" ]] \
		|| fail "perfkit runs on Linux x86-64; this is $$(uname -sm)"; \
	[[ -n "$(PYTHON)" ]] \
		|| fail "no Python >= 3.11 on the PATH: install one (apt-get install python3.11 python3.11-dev python3.11-venv) or run make PYTHON=/path/to/python"; \
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| fail "$(PYTHON) is no Python >= 3.11: run make PYTHON=/path/to/python"; \
	"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null \
		|| fail "$(PYTHON) cannot make virtual environments: apt-get install python3-venv"; \
	command -v "$(CC)" >/dev/null \
		|| fail "no C compiler ($(CC)): apt-get install gcc libc6-dev, or dnf install gcc"; \
	"$(PYTHON)" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))' \
		|| fail "Python.h of $(PYTHON) is missing: apt-get install python3-dev, or dnf install python3-devel"; \
	printf '#include <stdio.h>\n#include <linux/inet_diag.h>\n' | "$(CC)" -E -o /dev/null - 2>/dev/null \
		|| fail "the C library's or the kernel's headers are missing: apt-get install libc6-dev linux-libc-dev"

check-demo:
	@fail() { echo "perfkit: $$1" >&2; exit 2; }; \
	[[ " none $(CAUSES) " == *" $(or $(FAULT),none) "* ]] \
		|| fail "FAULT=$(FAULT) is unknown; choose one of: none $(sort $(CAUSES))"; \
	[[ " $(FRONTS) " == *" $(FRONT) "* ]] \
		|| fail "FRONT=$(FRONT) is unknown; choose one of: $(sort $(FRONTS))"

$(VENV)/.made:
	@$(MAKE) check-tools
	@echo "perfkit: making a virtual environment in $(VENV) with $(PYTHON)"
	@"$(PYTHON)" -m venv $(VENV)
	@$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml $(NATIVE)
	@$(MAKE) check-tools
	@echo "perfkit: building the C extension and installing perfkit into $(VENV)"
	@$(PIP) install --editable '.[cli,stacks]'
	@touch $@

$(VENV)/.tests: $(VENV)/.installed
	@echo "perfkit: installing what the tests need"
	@$(PIP) install --group test
	@touch $@

$(VENV)/.lint: $(VENV)/.tests
	@echo "perfkit: installing ruff, mypy and pyright"
	@$(PIP) install --group lint
	@touch $@

clean:
	@rm -rf $(VENV) build demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis
