# `make demo` and `make test` work on a fresh checkout; each sets up what it needs first.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
.PHONY: help setup demo demo-all test test-fast lint style clean

BIN := .venv/bin

# Python keeps what it compiled, whatever the environment says: else each of the many processes that
# the demo and the tests start compiles PyTorch anew.
unexport PYTHONDONTWRITEBYTECODE

# How many processes run tests: one more than there are cores, as tests wait for others now and then.
JOBS ?= $(shell expr $$(nproc) + 1)
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# The pure core, the native one, the launcher, the device, and one whole program.
FAST := $(addprefix tests/,attach gpu native plan predict prefetch runtime \
	systems/test_neighbours.py)

# Made last by scripts/setup.sh, one for each extra of pyproject.toml that somebody wanted. Python files
# are not among its sources: the installation is editable.
INSTALLED := .venv/.installed-
SOURCES := pyproject.toml CMakeLists.txt scripts/setup.sh scripts/pip_settings.py \
	$(wildcard native/* native/*/*)

help: ## what there is (this list)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s  %s\n", $$1, $$2}' Makefile

setup: $(INSTALLED)dev ## system packages (apt, as root), .venv, the native core, all for tests

$(INSTALLED)%: $(SOURCES)
	@scripts/setup.sh $*

demo: $(INSTALLED)flexgen ## unmodified FlexGen on the emulated confidential GPU, per policy, in one table
	@$(BIN)/python -m examples.flexgen.demo

demo-all: $(INSTALLED)systems ## the same for FlexGen, PEFT and vLLM, some minutes
	@$(BIN)/python -m examples.demo

test: style ## ruff, then all tests; mypy is one of them
	@$(PYTEST)

test-fast: style ## ruff, then tests of the core, the launcher and the device, and one program
	@$(PYTEST) -m "not long" $(FAST)

lint: style ## ruff and mypy
	@$(BIN)/mypy

style: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

clean: ## removes .venv, build and the caches in this folder
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests examples -name __pycache__ -prune -exec rm -rf {} +
