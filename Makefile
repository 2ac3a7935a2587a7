# Everything runs in .venv, which is made on first use and again when the dependencies change.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
DEPENDENCIES := pyproject.toml constraints.txt
# The optimizer libraries whose checkpoints are converted, for the tests of that, and what they need
# besides torch. Without dependencies, as timm's torchvision does not go with a CPU build of torch, and
# in a folder of their own, so that pip does not complain of what they lack.
PEERS := timm heavyball opt-einsum torch-optimi bitsandbytes
# Frameworks that train with our optimizers in the slow tests, and what they need besides torch.
FRAMEWORKS := lightning pytorch-lightning lightning-utilities torchmetrics accelerate psutil \
  transformers tokenizers huggingface_hub regex tqdm pyyaml requests urllib3 charset-normalizer idna \
  certifi httpx2 httpcore2 truststore h11 anyio sniffio

.PHONY: race test test-all check bench docs clean

race: .venv/race.stamp  ## train networks with every optimizer; a table, and a page in race-small/
	$(BIN)/thalweg race

test: check .venv/peers.stamp  ## lint, types and the fast tests
	THALWEG_PEERS=.venv/peers $(BIN)/python -m pytest -n auto -m "not slow"

test-all: check .venv/peers.stamp .venv/frameworks.stamp  ## ... and the slow tests
	THALWEG_PEERS=.venv/peers THALWEG_FRAMEWORKS=.venv/frameworks $(BIN)/python -m pytest -n auto

check: .venv/dev.stamp  ## lint, format and types only
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict src

bench: .venv/dev.stamp  ## step times beside torch.optim's, measured on this machine
	$(BIN)/python -m benchmarks

docs: .venv/docs.stamp  ## the documentation, into site/
	$(BIN)/mkdocs build --strict

clean:  ## remove everything that was made
	rm -rf .venv site docs/pictures build race-small race-full .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/race.stamp: $(DEPENDENCIES) | .venv/bin/python
	@echo "Installing thalweg[race] into .venv ..."
	$(PIP) -e ".[race]"
	@touch $@

.venv/dev.stamp: $(DEPENDENCIES) | .venv/bin/python
	@echo "Installing thalweg[race,dev] into .venv ..."
	$(PIP) -e ".[race,dev]"
	@touch $@ .venv/race.stamp

.venv/peers.stamp: .venv/dev.stamp
	@echo "Installing $(PEERS) into .venv/peers ..."
	$(PIP) --no-deps --upgrade --target .venv/peers $(PEERS)
	@touch $@

.venv/frameworks.stamp: .venv/dev.stamp
	@echo "Installing lightning, accelerate and transformers into .venv/frameworks ..."
	$(PIP) --no-deps --upgrade --target .venv/frameworks $(FRAMEWORKS)
	@touch $@

.venv/docs.stamp: $(DEPENDENCIES) | .venv/bin/python
	@echo "Installing thalweg[docs] into .venv ..."
	$(PIP) -e ".[docs]"
	@touch $@
