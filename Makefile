# make install   builds .venv, installs everything
# make demo      the same, then runs the whole pipeline on a few photographs
# make test      the same, then runs the tests, TEST_WORKERS files at a time
#
# PYTHON=python3.12  another interpreter;  VENV=path  another (or your own) environment.
# A torch and torchvision that PYTHON or VENV already has are used as they are, not downloaded again.

PYTHON ?= python3
VENV   ?= .venv
EXTRAS ?= dev,oracle,slurm
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SNAKEMAKE_FLAGS ?= --cores all --resources gpu=20
CONFIG ?= configs/demo.yaml
TEST_WORKERS ?= 2

.PHONY: install demo test slow lint types schema clean

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/snakemake $(SNAKEMAKE_FLAGS) --configfile $(CONFIG)

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) --no-loadscope-reorder $(PYTEST_FLAGS)

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow $(PYTEST_FLAGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	# left out: one environment serves all rules, and what may change without a rerun is no param
	! $(BIN)/snakemake --lint --configfile configs/demo.yaml 2>&1 | grep -E '^ +\*|Error' \
	    | grep -v -e 'Specify a conda environment' -e 'Shell command directly uses variable'

types: $(STAMP)
	$(BIN)/mypy

schema: $(STAMP)
	$(BIN)/python -m workflow schema

$(BIN)/python:
	if $(PYTHON) -c "import torch, torchvision" 2>/dev/null; \
	then $(PYTHON) -m venv --system-site-packages $(VENV); \
	else $(PYTHON) -m venv $(VENV); fi

$(STAMP): pyproject.toml constraints.txt install.sh | $(BIN)/python
	sh install.sh $(BIN)/python "$(EXTRAS)"
	touch $@

clean:
	rm -rf .venv build *.egg-info
