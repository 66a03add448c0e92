# make demo and make test set everything up themselves: a virtual environment in .venv, and what they need in it.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo demo-full test test-all bench fuzz lint format clean

demo: $(STAMP)
	$(BIN)/sensikit demo --out demo

demo-full: $(STAMP)
	$(BIN)/sensikit demo --full --out demo-full

# one process to a core, and one thread to a process
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile

test: lint
	$(TESTS)

test-all: lint
	$(TESTS) -m ""

bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks

# hostile and damaged inputs by the hundred; a small part of it is among the tests
fuzz: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy sensikit cli

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# fairseq's wheel is not Meta's own: it is taken by its hash, and without torchaudio; then the rest as it was tested
$(STAMP): pyproject.toml $(wildcard requirements/*.txt)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/fairseq.txt
	$(BIN)/python -m pip install --quiet --constraint requirements/constraints.txt \
		--requirement requirements/fairseq-needs.txt --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) demo demo-full .pytest_cache .mypy_cache .ruff_cache
