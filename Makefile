# make train: sets everything up and runs the main job on the embedded data set.
# make test:  sets everything up and runs the whole test suite.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL ?= $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: train test test-slow torture lint docs engines format clean

train: $(VENV)/train.installed
	$(BIN)/python -m trainers.main --flagfile=vamp.flags

test: $(VENV)/test.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Minutes of work and gigabytes of generated data: memory, speed of reading, kills on real data.
test-slow: $(VENV)/test.installed
	$(BIN)/python -m pytest -m slow -s

# Kills, full disks, hostile inputs and requests: hours. PARTS="kills disk" runs some, SCALE=.1 a tenth of the cases.
torture: $(VENV)/test.installed
	PYTHONPATH=.:tests $(BIN)/python -m torture $(PARTS) --scale=$(or $(SCALE),1) --seed=$(or $(SEED),0)

lint: $(VENV)/test.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation site, in site/; a warning is an error.
docs: $(VENV)/docs.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# DuckDB and Spark, the optional engines of trainers.prepare.
engines: $(BIN)/python
	$(INSTALL) -r requirements-engines.txt

format: $(VENV)/test.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) site .pytest_cache .ruff_cache .mypy_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed. Received: $$($(PYTHON) --version 2>&1). Set PYTHON=…" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/train.installed: $(BIN)/python requirements.txt constraints.txt
	$(INSTALL) -r requirements.txt
	touch $@

$(VENV)/test.installed: $(BIN)/python requirements.txt requirements-test.txt constraints.txt
	$(INSTALL) -r requirements-test.txt
	touch $@

$(VENV)/docs.installed: $(BIN)/python requirements-docs.txt constraints.txt
	$(INSTALL) -r requirements-docs.txt
	touch $@
