# `make demo` and `make test` need nothing but Python 3.11 or newer; both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all lint docs tables check setup clean

demo: .venv/installed
	$(BIN)/segkc-deploy demo --out demo --overwrite

# Test files run in parallel, one thread each. OpenVINO has a process of its own: after everything else in one process,
# a later fork twice ended in a segmentation fault.
test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile -m "not openvino and not slow"
	$(BIN)/python -m pytest -m "openvino and not slow"

test-all: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile -m "not openvino"
	$(BIN)/python -m pytest -m openvino

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation as a site, in build/site; a broken link or an outdated table fails.
docs: .venv/installed
	$(BIN)/python docs/tools/tables.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# The generated tables of the Markdown files.
tables: .venv/installed
	$(BIN)/python docs/tools/tables.py

check: lint docs test

setup: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.12 demo"'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@

clean:
	rm -rf .venv build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache
