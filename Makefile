# make demo and make test set everything up themselves: a virtual environment in .venv, and what they need in it.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INSTALL := $(BIN)/python -m pip install --quiet --no-compile

.PHONY: demo demo-full test test-all bench gpu gpu-wheels fuzz study docs lint format clean

demo: $(STAMP)
	$(BIN)/sensikit demo --out demo

demo-full: $(STAMP)
	$(BIN)/sensikit demo --full --out demo-full

# one process to a core, and one thread to a process; reordered, the files of few tests would come last, some a minute long
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# a dead link, or a name that does not exist, is an error; with --quiet none would be
PAGES := NO_MKDOCS_2_WARNING=1 OMP_NUM_THREADS=1 $(BIN)/mkdocs build --strict

test: lint
	$(PAGES) --site-dir $(VENV)/site
	$(TESTS)

test-all: lint
	$(PAGES) --site-dir $(VENV)/site
	$(TESTS) -m ""

bench: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks

# on a bare machine with a GPU, torch, numpy, scipy and pandas: what else is needed comes along in gpu-wheels, which the second of these
# fills beforehand where there is a network, for the Python of that machine
GPU_PYTHON ?= python3
GPU_VERSION ?= 3.12
GPU_WITH ?= fairseq
WHEEL := $(BIN)/python -m pip download --quiet --only-binary=:all: --dest gpu-wheels --python-version $(GPU_VERSION) \
	--implementation cp $(foreach n,28 27 24 17,--platform manylinux_2_$(n)_x86_64) --platform manylinux2014_x86_64

gpu:
	$(GPU_PYTHON) -m tests.benchmarks.gpu --out gpu-results --wheels gpu-wheels

gpu-wheels: $(STAMP)
	rm -rf gpu-wheels
	$(WHEEL) --constraint requirements/constraints.txt --requirement requirements/gpu.txt
	rm -f gpu-wheels/numpy-* gpu-wheels/hf_xet-*
ifeq ($(GPU_WITH),fairseq)
	$(WHEEL) --no-deps --require-hashes --requirement requirements/fairseq.txt
	$(WHEEL) --constraint requirements/constraints.txt --no-deps bitarray hydra-core omegaconf
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir gpu-wheels --constraint requirements/constraints.txt antlr4-python3-runtime
else
	$(WHEEL) --constraint requirements/constraints.txt --no-deps $(GPU_WITH)
endif
	@du -sh gpu-wheels

# hostile and damaged inputs by the hundred; a small part of it is among the tests
fuzz: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz

# the paper's claims on your own text: LANG.{train,dev,test}.tsv.gz in DATA, LANG.extra.txt.gz in MONO; goes on after a kill
study: $(STAMP)
	$(BIN)/python notebooks/study/study.py "$(DATA)" "$(MONO)" --out study --jobs $(or $(JOBS),1)
	cp study/study.md docs/study.md

# the pages, in site/; with figures in the notebooks where make demo was run before
docs: $(STAMP)
	SENSIKIT_RUN="$(wildcard $(CURDIR)/demo/run)" $(PAGES)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy sensikit cli

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# fairseq's wheel is not Meta's own: it is taken by its hash, and without torchaudio; then the rest as it was tested. pip would
# compile one file after the other, with the tests of every package: that takes longer than all the rest
$(STAMP): pyproject.toml $(wildcard requirements/*.txt)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(INSTALL) --no-deps --require-hashes -r requirements/fairseq.txt
	$(INSTALL) --constraint requirements/constraints.txt --requirement requirements/fairseq-needs.txt --editable ".[test]"
	-$(BIN)/python -W ignore -m compileall -q -j 0 -x '/tests/|/testing/_internal/|/wagtail/' $(VENV)/lib
	touch $@

clean:
	rm -rf $(VENV) demo demo-full gpu-wheels gpu-results site .pytest_cache .mypy_cache .ruff_cache
