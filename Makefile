# make demo          install into .venv and run the quick start; prints the path of its HTML report
# make check         formatting, static checks, types, and the tests that need a second: for while one works
# make test          install into .venv with the test extras and run the tests, on all cores
# make slow          what neither holds: simulations, witnesses, published commands, browsers
# make test-oldest   the tests with the oldest versions that pyproject.toml allows, in .venv-oldest (some gigabytes)
# make lint          formatting, static checks and types
# A second run installs nothing, and needs no network.

PYTHON ?= python3
VENV := .venv
OLDEST := .venv-oldest
BIN := $(VENV)/bin
# One test a core; more threads within a test would only wait for each other.
PARALLEL := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

.PHONY: demo check test slow test-oldest lint clean

demo: $(VENV)/.installed
	$(BIN)/pyconv-search run studies/quickstart.yaml --out runs/quickstart

check: lint
	$(PARALLEL) -m "not slow" tests/test_layers.py tests/test_files.py tests/arch tests/space tests/study tests/results

test: $(VENV)/.installed-test
	$(PARALLEL) -m "not slow"

slow: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

test-oldest: $(OLDEST)/.installed
	PYTHONPATH=. OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest --numprocesses auto --dist worksteal -m "not slow"

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed; point to one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@ $(VENV)/.installed

# uv can choose the lowest versions of what is named here and matching ones of the rest; pip cannot.
$(OLDEST)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet uv
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct \
	    --requirements pyproject.toml --extra video
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints.txt pytest hypothesis pytest-xdist
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
