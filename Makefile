# All targets set up .venv first. If pip's default index carries the CUDA build of torch (gigabytes), name another one:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := .peers
ZOO := .zoo
SERVERS := triton mlserver kserve ray-serve mlflow onnxruntime-web
# A process for each of two cores, but for Ray's cluster. The tests of a file share what they start.
PYTEST := pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-gpu coverage bench zoo docs lint install hooks servers clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## build the digits model, score held-out digits with it, serve it, ask the server and verify it live
	@$(BIN)/mlpx build models/digits/spec.yaml --data models/digits/heldout.parquet -o out/digits
	@$(BIN)/python -m models.score digits out/digits/digits.onnx
	@$(BIN)/python -m models.ask digits out/digits
	@echo "try       $(BIN)/mlpx predict out/digits/digits.onnx models/digits/heldout.parquet -o out/digits/scores.csv"

test: lint servers ## lint, types and the tests; about 17 minutes on 2 cores once set up
	$(BIN)/python -m $(PYTEST) -m "not repeat and not cluster"
	$(BIN)/python -m pytest -m cluster

test-all: lint servers ## the same with every repeat of a property, and the coverage of branches
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m $(PYTEST) -m "not cluster" --hypothesis-profile everything
	$(BIN)/coverage run -m pytest -m cluster
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-gpu: $(READY) ## the tests that need a GPU, with NVIDIA's libraries (gigabytes)
	$(PIP) --config-settings editable_mode=compat --editable ".[build,cuda,files,report,dev]"
	$(BIN)/python -m pytest -m cuda

bench: $(READY) $(PEERS)/.ready ## every target of speed, measured; about 13 minutes on 2 cores that do nothing else
	$(BIN)/python -m benchmarks.speed --json out/bench/speed.json --plot out/bench/speed.png $(BENCH)

zoo: $(READY) $(ZOO)/.ready ## networks of published packages by mlpx and by torch.onnx; 700 MB, about 8 minutes on 2 cores
	$(BIN)/python -m benchmarks.zoo --json out/zoo/zoo.json --markdown out/zoo/zoo.md $(BENCH)

docs: $(READY) .servers/onnxruntime-web/.ready ## the documentation site, in out/website/site; fails on a broken link, about half a minute
	@$(BIN)/python -m website

lint: $(READY) ## ruff, the spelling, GitHub's files and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/pyright
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH="$(CURDIR)" sh -c \
		'public=$$(pyright --verifytypes mlpx --ignoreexternal) || { echo "$$public"; exit 1; }; echo "$$public" | grep score'

install: $(READY) ## only set up .venv

hooks: $(READY) ## run ruff and the spelling before every commit
	$(BIN)/pre-commit install

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mlpx needs Python 3.11 or newer. What to do: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) --config-settings editable_mode=compat --editable ".[build,gpu,files,report,ray,serve,dev,docs]"
	@touch $@

# Beside the product's environment, so that they cannot change what is installed there.
$(PEERS)/.ready: benchmarks/requirements.txt
	$(PIP) --target $(PEERS) --upgrade --no-deps --requirement benchmarks/requirements.txt && touch $@ || \
		echo "the peers cannot be installed here; the table will say so"

# The same for the packages of the zoo, each of which may be missing.
$(ZOO)/.ready: benchmarks/zoo/requirements.txt
	$(PIP) --target $(ZOO) --upgrade --no-deps --requirement benchmarks/zoo/requirements.txt && touch $@ || \
		echo "the zoo cannot be installed here; the table will say so"

servers: $(SERVERS:%=.servers/%/.ready) ## the servers that tests start, each in an environment of its own; 3 GB in all

# One that cannot be installed leaves .servers/NAME.reason, which its tests are skipped with.
.servers/%/.ready: tests/support/servers/%.txt tests/support/servers/%.constraints.txt tests/support/servers/install.py
	@$(PYTHON) -m tests.support.servers.install $*

# From npm, and without anything to constrain.
.servers/onnxruntime-web/.ready: tests/support/servers/onnxruntime-web.txt tests/support/servers/install.py
	@$(PYTHON) -m tests.support.servers.install onnxruntime-web

clean: ## remove everything that these commands made
	rm -rf $(VENV) $(PEERS) $(ZOO) .servers out build dist *.egg-info
