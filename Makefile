# The scripts that CI runs are the ones you run. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MIDI := ../shared/midi/dev
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup fmt check test demo bench faults docs clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-7s %s\n", $$1, $$2}'

setup: $(VENV)/.dev  ## make .venv with everything that development needs

fmt: $(VENV)/.dev  ## format the code and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(VENV)/.dev  ## format, lint, types, layers, and whether the docs match the code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/python scripts/build_docs.py --check

test: $(VENV)/.dev  ## the tests; ARGS="-m slow" for the slow ones
	$(BIN)/python -m pytest $(ARGS)

demo: $(VENV)/.user  ## from public-domain music to new music, on a CPU, in minutes; leaves demo/
	$(BIN)/meloformer demo $(ARGS)

bench: $(VENV)/.user  ## what fits into a GPU, how fast a step is here, how long training takes
	$(BIN)/meloformer bench $(ARGS)

faults: $(VENV)/.dev  ## damaged files and killed runs, some minutes; MIDI=folder of MIDI files
	$(BIN)/python -m benchmarks.faults mutate $(MIDI)
	$(BIN)/python -m benchmarks.faults kill $(MIDI)
	for kind in kill disk damage; do $(BIN)/python -m benchmarks.faults_training $$kind || exit 1; done

docs: $(VENV)/.dev  ## write the generated parts of docs/ again
	$(BIN)/python scripts/build_docs.py

clean:  ## remove .venv and all caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: '$(PYTHON)' is not Python 3.11 or newer; name one that is: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "make: '$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; rm -rf $(VENV); exit 1; }

$(VENV)/.user: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) ..."
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV), with what development needs ..."
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $(VENV)/.user $@
