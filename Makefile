PYTHON ?= python3
# Where pip finds torch without CUDA; where it does not answer, the default index serves.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := torch==2.13.0

# What locks and audits; in a folder of its own, so that what it needs does not mix with what serves.
TOOLS := cyclonedx-bom==7.5.0 pip-audit==2.10.1 uv==0.13.9
# More for `docker build`, such as --network host.
IMAGE_FLAGS ?=

BIN := .venv/bin
MODEL := used-car-price
PROMOTED := models/$(MODEL)/promotions/1.json

.PHONY: run test torture lint bench bench-accuracy bench-peers lock audit image image-test

run: $(PROMOTED)
	$(BIN)/python -m app --store models --name $(MODEL)

# All tests in two processes, or those that ARGS picks in one: make test ARGS='-k name'.
ARGS ?= --numprocesses 2 --dist worksteal

test: .venv/dev
	$(BIN)/python -m pytest $(ARGS)

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

# Accuracy on public tables, beside gradient boosting; CatBoost at its defaults takes most of an hour.
bench-accuracy: .venv/bench
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.accuracy

# Other servers beside this one; the first time it installs each of them under .peers.
bench-peers: .venv/dev
	$(BIN)/python -m benchmarks.peers

# The newest versions that pyproject.toml admits, one for each distribution on all systems, with the SHA-256 of
# all its files. torch is left out: its file is another in each index. So are CUDA's libraries, which it asks for on
# Linux alone; hence the other system.
LOCK := .venv/tools/bin/uv pip compile pyproject.toml --upgrade --python-version 3.11 --generate-hashes \
    --no-emit-index-url --custom-compile-command 'make lock' --quiet

lock: .venv/tools/done
	$(LOCK) --universal --fork-strategy fewest --output-file requirements/serve.txt
	$(LOCK) --universal --fork-strategy fewest --extra remote --extra tracing \
	    --constraint requirements/serve.txt --output-file requirements/cloud.txt
	MACOSX_DEPLOYMENT_TARGET=14.0 $(LOCK) --extra train --python-platform macos --no-emit-package torch \
	    --constraint requirements/serve.txt --output-file requirements/train.txt

# Known vulnerabilities of the locked versions, and a list of what serves (CycloneDX).
audit: .venv/tools/done
	mkdir -p dist
	.venv/tools/bin/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible \
	    --output-file dist/serve.cdx.json requirements/serve.txt
	.venv/tools/bin/python -m tests.audit requirements/cloud.txt requirements/train.txt

image:
	docker build $(IMAGE_FLAGS) --target serve --tag plumbline .
	docker build $(IMAGE_FLAGS) --target serve --build-arg LOCK=cloud --tag plumbline-cloud .
	docker build $(IMAGE_FLAGS) --target train --build-arg TORCH_INDEX=$(TORCH_INDEX) --tag plumbline-train .

# Builds the images and runs them, where a Docker engine answers.
image-test: .venv/dev
	$(BIN)/python -m pytest --images tests/test_image.py

$(PROMOTED): | .venv/train cars.csv
	$(BIN)/python -m training fit cars.csv --target Price --feature Kilometers_Driven \
	    --optimizer gd --learning-rate 0.1 --epochs 200 --seed 0 --name $(MODEL) --store models --promote

cars.csv: | .venv/train
	$(BIN)/python -m training sample $@

.venv/torch:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --retries 1 --timeout 15 --extra-index-url $(TORCH_INDEX) $(TORCH)
	touch $@

.venv/train .venv/dev .venv/bench: .venv/%: pyproject.toml | .venv/torch
	$(BIN)/pip install --quiet --editable '.[$*]'
	touch $@

.venv/tools/done: Makefile
	$(PYTHON) -m venv --clear .venv/tools
	.venv/tools/bin/pip install --quiet $(TOOLS)
	touch $@
