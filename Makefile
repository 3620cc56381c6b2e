# `make demo`, `make test` and `make check` each make the environment they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
TESTERS ?= 2
# In the files' order: sorted by their number of tests, the files of a few long ones would come last.
PARALLEL := --numprocesses $(TESTERS) --dist loadfile --no-loadscope-reorder
READY  := $(VENV)/.ready

export DO_NOT_TRACK = true
export RAY_USAGE_STATS_ENABLED = 0
export MLFLOW_DISABLE_TELEMETRY = true
# Empty: the tests start many processes, and each would compile every module again.
export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL := help

help:            ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11; run: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Making the environment in $(VENV): some minutes, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

venv: $(READY)   ## the environment in .venv, pinned by constraints.txt

demo: $(READY)   ## phantom cohort, training on two Ray workers, evaluation, prediction, report (under 5 minutes)
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash scripts/demo.sh

test coverage: export OMP_NUM_THREADS = 1

test: $(READY)   ## the suite, on TESTERS processes (2)
	$(BIN)/pytest -m 'not slow' $(PARALLEL)

coverage: $(READY) ## which lines the suite leaves out; twice its time
	$(BIN)/pytest -m 'not slow' $(PARALLEL) --cov

test-all: test   ## and its many kills, servers and long runs; about an hour more
	$(BIN)/pytest -m 'slow and not alone' $(PARALLEL)
	$(BIN)/pytest -m 'slow and alone'

check: $(READY)  ## format, lint, types, import contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" lint-imports

verify:          ## every number against other packages, in an environment of its own; false alarms of the statistics
	@test -x .venv-verify/bin/pip || $(PYTHON) -m venv .venv-verify
	@grep -v '^attrs==' constraints.txt > .venv-verify/constraints.txt
	.venv-verify/bin/pip install --quiet --disable-pip-version-check --constraint .venv-verify/constraints.txt \
		--editable '.[verify]'
	.venv-verify/bin/python -m verification

chaos: $(READY)  ## a hundred kills at random moments, full disks, cut links; hours, and it resumes
	$(BIN)/python -m verification.chaos

bench: $(READY)  ## every benchmark; ratios measured side by side
	$(BIN)/python -m benchmarks

clean:           ## remove what the demo made
	rm -rf demo

.PHONY: help venv demo test coverage test-all check verify chaos bench clean
