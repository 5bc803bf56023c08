# Two commands do everything on a machine with Python 3.10 or newer: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test install lint types package docs format clean

demo: install
	$(BIN)/natstats demo --out runs/demo --overwrite

test: install lint types package docs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto  # one thread a worker; -m "not slow" is quick

install: $(VENV)/installed

# The stamp is newer than the metadata once everything in it is installed.
$(VENV)/installed: setup.cfg setup.py pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 10), "Python 3.10 or newer is needed"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

package: install
	.ci/package $(BIN)/python

# The site goes into site/: open site/index.html. Every warning is an error, dead links are, too;
# with --quiet there would be none.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --clean

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache
