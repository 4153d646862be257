# make help lists the targets. Everything runs in .venv, which the first target that needs it creates.

PYTHON ?= python3
BIN := .venv/bin
# A process a core, a file at a time in the order of their folders; the slowest tests are shown.
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --durations=15
# Tests start a hundred interpreters, each of which would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help

.PHONY: help setup train test cover test-long check lint format dashboard bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/installed  ## create .venv and install, nothing else

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is $$($(PYTHON) -V); try make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,tgif]'
	@touch $@

train: setup  ## train the default model on moving digits; ends with pictures to look at
	$(BIN)/python train.py

test: lint  ## every check and test, but for the long ones
	$(PYTEST) -m 'not long'

cover: lint  ## the same with coverage, of which 90 % are needed
	$(PYTEST) -m 'not long' --cov --cov-report=term:skip-covered --cov-fail-under=90

test-long: setup  ## tests with large counts, which take minutes each
	$(PYTEST) -m long

check: lint  ## format, lint, types, layers, fast tests
	$(PYTEST) -q -m 'not slow and not long'

lint: setup  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup  ## a training step beside video-diffusion-pytorch's: under 20 minutes, one thread
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.network

dashboard: setup  ## TensorBoard on all runs, at http://localhost:6006
	$(BIN)/tensorboard --logdir outputs

clean:  ## remove .venv, caches and generated data; outputs/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage* data/cache data/moving_digits
