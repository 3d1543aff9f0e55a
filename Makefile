# Everything runs from a fresh clone with Python (3.11 or newer) and make.
# The environment .venv is made once and reused until pyproject.toml or constraints.txt change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV = $(BIN)/uv pip install --python $(BIN)/python --quiet --constraint constraints.txt
THREADS := NUMBA_NUM_THREADS=2 OMP_NUM_THREADS=2

.PHONY: demo test lint docs bench tutorials clean

demo: $(VENV)/.user
	$(BIN)/python -m nbcompare.datasets.demo demo_output

test: $(VENV)/.dev
	$(THREADS) $(BIN)/python -m pytest -n 2 -q

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.dev
	$(BIN)/python -m sphinx -M html docs docs/_build -W --keep-going -q

bench: $(VENV)/.dev
	for script in peers/speed calibration/calibration peers/paper_table; do $(BIN)/python benchmarks/$$script.py || exit 1; done

tutorials: $(VENV)/.dev
	$(BIN)/jupyter execute --inplace tutorials/*.ipynb

clean:
	rm -rf $(VENV) docs/_build docs/generated docs/tutorials demo_output
	find src -name '*.nb[ic]' -delete

$(VENV)/.base:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.8"
	touch $@

$(VENV)/.user: $(VENV)/.base pyproject.toml constraints.txt
	$(UV) --editable ".[plot]"
	touch $@

# torch by pip, which takes a wheel or an index that the user's pip configuration names: the build without CUDA, where there is one
$(VENV)/.dev: $(VENV)/.base pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(UV) --editable ".[dev]"
	touch $@ $(VENV)/.user
