PYTHON ?= python3
# Where pip finds torch without CUDA; where it does not answer, the default index serves.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := torch==2.13.0

BIN := .venv/bin
MODEL := used-car-price
PROMOTED := models/$(MODEL)/promotions/1.json

.PHONY: run test torture lint bench bench-peers

run: $(PROMOTED)
	$(BIN)/python -m app --store models --name $(MODEL)

test: .venv/dev
	$(BIN)/python -m pytest

# Every fault test at its full size, which takes about ten minutes.
torture: .venv/dev
	$(BIN)/python -m pytest --torture tests/test_torture_*.py

lint: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/dev
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.store
	$(BIN)/python -m benchmarks.large_requests
	$(BIN)/python -m benchmarks.serving

# Other servers beside this one; the first time it installs each of them under .peers.
bench-peers: .venv/dev
	$(BIN)/python -m benchmarks.peers

$(PROMOTED): | .venv/train cars.csv
	$(BIN)/python -m training fit cars.csv --target Price --feature Kilometers_Driven \
	    --optimizer gd --learning-rate 0.1 --epochs 200 --seed 0 --name $(MODEL) --store models --promote

cars.csv: | .venv/train
	$(BIN)/python -m training sample $@

.venv/torch:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --retries 1 --timeout 15 --extra-index-url $(TORCH_INDEX) $(TORCH)
	touch $@

.venv/train .venv/dev: .venv/%: pyproject.toml | .venv/torch
	$(BIN)/pip install --quiet --editable '.[$*]'
	touch $@
