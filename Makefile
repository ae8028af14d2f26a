# Every target sets up what it needs; nothing is installed outside .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export MPLBACKEND := Agg

# What other libraries' models need, apart from what pelton itself is tested with.
ADAPTERS := .venv-adapters
ADAPTERS_STAMP := $(ADAPTERS)/.installed
# The lower bounds of pyproject.toml.
OLDEST := .venv-oldest
OLDEST_STAMP := $(OLDEST)/.installed
# What the documentation site is built with.
DOCS := .venv-docs
DOCS_STAMP := $(DOCS)/.installed
# What the tutorials' notebooks are run with, in .venv.
NOTEBOOKS_STAMP := $(VENV)/.notebooks
PYMC_FILES := src/pelton/pymc.py src/pelton/engine/sources/pymc.py src/pelton/engine/sources/pytensor.py

.PHONY: help setup docs pictures notebooks demo test test-long test-slow reliability test-adapters test-oldest lint types imports doctest wheel format clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' || \
	  { echo "pelton needs Python 3.12 or later; set PYTHON=/path/to/python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,dev]'
	@touch $@

setup: $(STAMP)  ## everything that work on pelton needs, in .venv, and the commit hooks
	@test ! -e .git || $(BIN)/pre-commit install >/dev/null
	@echo "Ready: $(BIN)/pelton --help, make test"

demo: $(STAMP)  ## fit the bundled categories, print the table, write posterior and report to demo-out/
	$(BIN)/pelton fit example:categories --successes clicks --trials impressions --unit category --prior mean-concentration:2,2,1,1.5 --budget 48000000 --top 5 --out demo-out

test: $(STAMP)  ## the tests, in under 20 minutes on two cores
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not long and not adapters"

test-long: $(STAMP)  ## tests that take long, and the code and commands of README and docs; CI runs them too
	$(BIN)/python -m pytest -n 2 --dist load -m "long and not slow"

test-slow: $(STAMP)  ## calibration and long comparisons
	$(BIN)/python -m pytest -m slow --timeout 7200

reliability: $(STAMP)  ## random inputs, ten times those of `make test`, and their counts in docs/reliability.md
	$(BIN)/python -m pelton.benchmarks.reliability --times 10

$(ADAPTERS_STAMP): pyproject.toml constraints-adapters.txt
	@test -x $(ADAPTERS)/bin/python || $(PYTHON) -m venv $(ADAPTERS)
	$(ADAPTERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-adapters.txt \
	  -e '.[test,pymc]' pymc-marketing bambi nutpie
	@touch $@

test-adapters: $(ADAPTERS_STAMP)  ## PyMC, PyMC-Marketing and Bambi models, in an environment of their own
	$(ADAPTERS)/bin/python -m pytest -n 2 --dist load -m adapters tests/adapters
	$(ADAPTERS)/bin/python -m pytest -p no:cacheprovider -W ignore --doctest-modules $(PYMC_FILES)

$(OLDEST_STAMP): pyproject.toml constraints-oldest.txt
	@test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt -e '.[test]'
	@touch $@

test-oldest: $(OLDEST_STAMP)  ## a part of the tests with the oldest versions of JAX, NumPyro, BlackJAX, ArviZ and the others
	bash .ci/oldest

$(DOCS_STAMP): pyproject.toml constraints.txt
	@test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

docs: $(DOCS_STAMP)  ## the documentation site in site/, broken links and anchors refused
	@# Quiet, mkdocs would not count its own warnings, and refuse nothing.
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

pictures: $(STAMP)  ## the pictures of docs/, made by the code of its pages
	PELTON_WRITE_PICTURES=1 $(BIN)/python -m pytest tests/test_docs.py

$(NOTEBOOKS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[notebooks]'
	@touch $@

notebooks: $(NOTEBOOKS_STAMP)  ## the tutorials as notebooks in docs/notebooks/, run by the code of their pages (some minutes)
	$(BIN)/python -m tests.notebooks

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/pyright

imports: $(STAMP)
	$(BIN)/lint-imports

doctest: $(STAMP)  ## the examples in the docstrings
	$(BIN)/python -m pytest -p no:cacheprovider --doctest-modules src/pelton $(PYMC_FILES:%=--ignore=%) \
	  --ignore-glob='*/benchmarks/rivals/*'

wheel: $(STAMP)  ## build the wheel, compare its files with the tree, run the main job from it in an empty environment
	bash .ci/wheel

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(ADAPTERS) $(OLDEST) $(DOCS) dist build site demo-out
