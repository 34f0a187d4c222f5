# Everything a contributor or CI runs. Each target sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup test demo check format bench clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

test: setup
	$(BIN)/python -m pytest

demo: setup
	$(BIN)/hiposeg demo

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -m "not slow" -n auto

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python benchmarks/help_time.py
	$(BIN)/python benchmarks/step_time.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/coco_scale.py
	$(BIN)/python benchmarks/prepare_speed.py
	$(BIN)/python benchmarks/eval_speed.py
	$(BIN)/python benchmarks/loss_memory.py

clean:
	rm -rf $(VENV)
