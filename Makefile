# make demo   build the digits model, score held-out digits with it, serve it, ask the server and verify it live
# make test   lint, types and the whole test suite
# make servers   the inference servers that tests start, each in an environment of its own (2 GB in all); part of make test
# make test-gpu   the tests that need a GPU, with NVIDIA's libraries (gigabytes)
# make bench  every target of speed, measured; about 13 minutes on 2 cores that do nothing else
# make zoo    networks of published packages by mlpx and by torch.onnx; 700 MB, about 8 minutes on 2 cores
# All set up .venv first. If pip's default index carries the CUDA build of torch (gigabytes), name another one:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := .peers
ZOO := .zoo
SERVERS := triton mlserver kserve ray-serve onnxruntime-web
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-gpu bench zoo lint install servers clean

demo: $(READY)
	@$(BIN)/mlpx build models/digits/spec.yaml --data models/digits/heldout.parquet -o out/digits
	@$(BIN)/python -m models.score digits out/digits/digits.onnx
	@$(BIN)/python -m models.ask digits out/digits
	@echo "try       $(BIN)/mlpx predict out/digits/digits.onnx models/digits/heldout.parquet -o out/digits/scores.csv"

test: lint servers
	$(BIN)/python -m pytest

test-gpu: $(READY)
	$(PIP) --config-settings editable_mode=compat --editable ".[build,cuda,files,report,dev]"
	$(BIN)/python -m pytest -m cuda

bench: $(READY) $(PEERS)/.ready
	$(BIN)/python -m benchmarks.speed --json out/bench/speed.json --plot out/bench/speed.png $(BENCH)

zoo: $(READY) $(ZOO)/.ready
	$(BIN)/python -m benchmarks.zoo --json out/zoo/zoo.json --markdown out/zoo/zoo.md $(BENCH)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mlpx needs Python 3.11 or newer. What to do: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) --config-settings editable_mode=compat --editable ".[build,gpu,files,report,ray,serve,dev]"
	@touch $@

# Beside the product's environment, so that they cannot change what is installed there.
$(PEERS)/.ready: benchmarks/requirements.txt
	$(PIP) --target $(PEERS) --upgrade --no-deps --requirement benchmarks/requirements.txt && touch $@ || \
		echo "the peers cannot be installed here; the table will say so"

# The same for the packages of the zoo, each of which may be missing.
$(ZOO)/.ready: benchmarks/zoo/requirements.txt
	$(PIP) --target $(ZOO) --upgrade --no-deps --requirement benchmarks/zoo/requirements.txt && touch $@ || \
		echo "the zoo cannot be installed here; the table will say so"

servers: $(SERVERS:%=.servers/%/.ready)

# One that cannot be installed leaves .servers/NAME.reason, which its tests are skipped with.
.servers/%/.ready: tests/support/servers/%.txt tests/support/servers/%.constraints.txt tests/support/servers/install.py
	@$(PYTHON) -m tests.support.servers.install $*

# From npm, and without anything to constrain.
.servers/onnxruntime-web/.ready: tests/support/servers/onnxruntime-web.txt tests/support/servers/install.py
	@$(PYTHON) -m tests.support.servers.install onnxruntime-web

clean:
	rm -rf $(VENV) $(PEERS) $(ZOO) .servers out build dist *.egg-info
