# install    virtual environment with everything pinned (CPU; CONSTRAINTS= for a machine with GPUs)
# quickstart the whole way on this machine's own text: ladder, curves, plan, mixture, report
# test       the whole test suite
# lint       ruff and mypy
# bench      the measurements in benchmarks/
PYTHON ?= python3
CONSTRAINTS ?= -c constraints-cpu.txt
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
# Tests side by side: a file a process, a process a core, one thread each.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n > 8 ? 8 : n)))

.PHONY: install quickstart test lint bench browser slurm clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mixplan needs Python 3.11 or newer; $(PYTHON) is older: make install PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[dev]'
	@touch $(STAMP)

quickstart: install
	$(BIN)/python examples/quickstart/run.py quickstart

test: browser slurm install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python benchmarks/training_speed.py

# The report is tested in a real browser.
browser:
	@sh tools/find_chromium.sh

# The Slurm engine is tested on a real Slurm, started and stopped by the tests.
slurm:
	@sh tools/slurm.sh install

clean:
	rm -rf $(VENV) quickstart .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
