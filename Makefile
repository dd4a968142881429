# Every target makes its own environment in .venv; no activated environment is assumed.
PYTHON ?= python3
VENV ?= .venv
# Where torch comes from. The pin is a CPU build where the index offers one, a CUDA build on most machines; for a small
# CPU build anywhere: make demo TORCH='torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu'
TORCH ?= torch==2.13.0
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
BIN := $(VENV)/bin
# DeepSpeed's fixed port 29500 may belong to another run on this machine
FREE_PORT = $$($(BIN)/python -c 'from dstrain.cluster.environment import free_port; print(free_port())')
LAUNCH = $(BIN)/deepspeed --quiet --master_port $(FREE_PORT)
RESULTS := tests/benchmarks/results
# a worker per core; WORKERS=0 runs in this process, for a debugger
WORKERS ?= auto
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

.PHONY: demo demo-parsing test-unit test test-slurm test-slurm-all test-lowest test-exports torture soak check check-gpu bench bench-gpu environment test-environment clean

demo: environment
	$(LAUNCH) launch/train.py --config configs/demo_translation.yaml $(SET)

demo-parsing: environment
	$(LAUNCH) launch/train.py --config configs/demo_parsing.yaml $(SET)

# one module at a time, without what is marked slow; three minutes on two cores
test-unit: test-environment
	$(PYTEST) tests/unit tests/test_architecture.py tests/test_configs.py -m "not slow" $(ARGS)

test: test-environment
	$(PYTEST) $(ARGS)

# the tests with the lowest versions that pyproject.toml admits; downloads several GB where torch has CUDA builds only
test-lowest: .venv-lowest/installed
	.venv-lowest/bin/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

# an exported model of every family, read by transformers 4 too
test-exports: test-environment .venv-exports/installed
	$(BIN)/python -m pytest tests/exports $(ARGS)

# on a real Slurm of two nodes that are namespaces of this machine; needs root on Debian or Ubuntu; minutes
test-slurm: test-environment
	$(BIN)/python -m pytest tests/slurm -m "not every_fault" $(ARGS)

# the same with every fault of nodes, network and Slurm itself
test-slurm-all: test-environment
	$(BIN)/python -m pytest tests/slurm $(ARGS)

# a two-rank run killed over and over; minutes
torture: test-environment
	$(BIN)/python -m tests.system.torture $(ARGS)

# a recipe killed at random moments for half an hour: what a kill costs; ARGS='--minutes 5' for less
soak: test-environment
	$(BIN)/python -m tests.system.soak $(ARGS)

check: test-environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py

# training, evaluation, head and loss against the usual way, and docs/performance.md; wants an otherwise idle machine
bench: test-environment
	$(PIP) install --quiet accelerate==1.15.0
	$(BIN)/python -m tests.benchmarks.report --describe
	$(BIN)/python -m tests.benchmarks.training --kind translation --json $(RESULTS)/training-translation.json
	$(BIN)/python -m tests.benchmarks.training --kind parsing --json $(RESULTS)/training-parsing.json
	$(BIN)/python -m tests.benchmarks.training --losses 50 --json $(RESULTS)/losses-translation.json
	$(BIN)/python -m tests.benchmarks.recipe --json $(RESULTS)/recipe-parsing.json
	$(BIN)/python -m tests.benchmarks.evaluation --json $(RESULTS)/evaluation.json
	$(BIN)/python -m tests.benchmarks.loss_memory --sizes mt5-small --real 0.4 --threads 2 --json $(RESULTS)/loss_memory.json
	$(BIN)/python -m tests.benchmarks.report

# what only a GPU can show: correctness, hidden waits, saves, speed; ten minutes, a line of JSON after each check
check-gpu: test-environment
	$(BIN)/python -m tests.gpu --json tests/gpu/results/checks.jsonl $(ARGS)

# the published sizes on a GPU; with a torch that fits it in the environment
bench-gpu: test-environment
	$(PIP) install --quiet accelerate==1.15.0
	$(BIN)/python -m tests.benchmarks.gpu --json $(RESULTS)/gpu.json
	$(BIN)/python -m tests.benchmarks.evaluation --size mt5-small --rounds 1 precision=bf16 --json $(RESULTS)/gpu-evaluation.json

environment: $(VENV)/installed
test-environment: $(VENV)/installed-test

$(VENV)/torch-installed:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet $(TORCH)
	@touch $@

$(VENV)/installed: $(VENV)/torch-installed pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) install --quiet --constraint constraints.txt --editable '.[test,tensorboard]'
	@touch $@

.venv-lowest/installed: pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip --disable-pip-version-check install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --editable .
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --editable '.[test,tensorboard]'
	@touch $@

.venv-exports/installed:
	$(PYTHON) -m venv .venv-exports
	.venv-exports/bin/python -m pip --disable-pip-version-check install --quiet $(TORCH)
	.venv-exports/bin/python -m pip --disable-pip-version-check install --quiet transformers==4.57.1 sentencepiece==0.2.3 protobuf==7.36.2
	@touch $@

clean:
	rm -rf $(VENV) .venv-lowest .venv-exports runs
