# On a fresh machine: `make run` trains and measures a federated recommender, `make test` passes the tests.

VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
READY = $(VENV)/fedrec-installed

.PHONY: run test slow

run: $(READY)
	$(BIN)/fedrec simulate

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

slow: $(READY)
	$(BIN)/pytest -m slow

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --constraint constraints.txt --editable '.[dev]'
	touch $@
