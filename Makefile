# Every target makes its own environment in .venv; no activated environment is assumed.
PYTHON ?= python3
VENV ?= .venv
# Where torch comes from: the locked version, a CPU build where the index offers one, a CUDA build on most machines. For a
# small CPU build anywhere: make demo TORCH='-r requirements/torch.txt --index-url https://download.pytorch.org/whl/cpu'
# Any other build has no hashes here: make demo TORCH='torch==2.12.0 --index-url …'
TORCH ?= -r requirements/torch.txt
PIP := $(VENV)/bin/python -m pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# A lock names every package with the hashes of its files, so that pip neither looks for more nor takes other files. Nothing is
# built in an environment of its own, for which pip would fetch what no lock names.
LOCKED := install --quiet --require-hashes --no-deps --no-build-isolation -r requirements
# pip 23.0 would run DeepSpeed's setup.py itself
export PIP_USE_PEP517 := 1
# pip check finds out whether this torch needs the packages of CUDA
INSTALL_TORCH = $(1) install --quiet $(if $(findstring -r requirements/torch.txt,$(TORCH)),--require-hashes --no-deps) $(TORCH) \
	&& { $(1) check > /dev/null || $(1) $(LOCKED)/cuda.txt; }
BIN := $(VENV)/bin
# DeepSpeed's fixed port 29500 may belong to another run on this machine
FREE_PORT = $$($(BIN)/python -c 'from dstrain.cluster.environment import free_port; print(free_port())')
LAUNCH = $(BIN)/deepspeed --quiet --master_port $(FREE_PORT)
RESULTS := tests/benchmarks/results
GROWN_MT5 := configs/demo_parsing.yaml model.scratch.architecture=mt5 --size mt5-small
# at the whole size; batches of 64 rows, or of 32 long ones by length, need more than 24 GB
WHOLE_MT5 := --model mt5-small --repeats 2 --updates 2 --update-tokens 1024
# a worker per core; WORKERS=0 runs in this process, for a debugger
WORKERS ?= auto
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

.PHONY: demo demo-parsing demo-text test-unit test test-slurm test-slurm-all test-browser test-lowest test-exports torture soak check check-gpu bench bench-gpu environment test-environment lock clean

demo: environment
	$(LAUNCH) launch/train.py --config configs/demo_translation.yaml $(SET)

demo-parsing: environment
	$(LAUNCH) launch/train.py --config configs/demo_parsing.yaml $(SET)

demo-text: environment
	$(LAUNCH) launch/train.py --config configs/demo_text.yaml $(SET)

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

# the page of `dstrain report` in a real browser; installs Debian's Chromium where there is none
test-browser: test-environment
	tests/browser/install
	$(BIN)/python -m pytest tests/browser $(ARGS)

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
	$(PIP) $(LOCKED)/bench.txt
	$(BIN)/python -m tests.benchmarks.report --describe
	$(BIN)/python -m tests.benchmarks.training --kind translation --json $(RESULTS)/training-translation.json
	$(BIN)/python -m tests.benchmarks.training --kind parsing --json $(RESULTS)/training-parsing.json
	$(BIN)/python -m tests.benchmarks.training --kind parsing $(WHOLE_MT5) --trainer-batches 16 32 --json $(RESULTS)/training-parsing-mt5-small.json
	$(BIN)/python -m tests.benchmarks.training --kind translation $(WHOLE_MT5) --trainer-batches 16 --json $(RESULTS)/training-translation-mt5-small.json
	$(BIN)/python -m tests.benchmarks.training --losses 50 --json $(RESULTS)/losses-translation.json
	$(BIN)/python -m tests.benchmarks.recipe --json $(RESULTS)/recipe-parsing.json
	$(BIN)/python -m tests.benchmarks.quality --json $(RESULTS)/quality-parsing.json
	$(BIN)/python -m tests.benchmarks.evaluation --json $(RESULTS)/evaluation.json
	$(BIN)/python -m tests.benchmarks.evaluation $(GROWN_MT5) evaluation.max_rows=128 --json $(RESULTS)/evaluation-mt5-small.json
	$(BIN)/python -m tests.benchmarks.predict --json $(RESULTS)/predict.json
	$(BIN)/python -m tests.benchmarks.loss_memory --sizes mt5-small --real 0.4 --threads 2 --json $(RESULTS)/loss_memory.json
	$(BIN)/python -m tests.benchmarks.report

# what only a GPU can show: correctness, hidden waits, saves, speed; ten minutes, a line of JSON after each check
check-gpu: test-environment
	$(BIN)/python -m tests.gpu --json tests/gpu/results/checks.jsonl $(ARGS)

# the published sizes on a GPU; with a torch that fits it in the environment
bench-gpu: test-environment
	$(PIP) $(LOCKED)/bench.txt
	$(BIN)/python -m tests.benchmarks.gpu --json $(RESULTS)/gpu.json
	$(BIN)/python -m tests.benchmarks.evaluation $(GROWN_MT5) --rounds 1 precision=bf16 --json $(RESULTS)/gpu-evaluation.json

# the locks in requirements/ from pyproject.toml and the *.in files beside them; ARGS=--upgrade takes the newest versions
lock: .venv-uv/installed
	PATH=$(CURDIR)/.venv-uv/bin:$$PATH requirements/lock.sh $(ARGS)

environment: $(VENV)/installed
test-environment: $(VENV)/installed-test

$(VENV)/locked: requirements/build.txt requirements/run.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(LOCKED)/build.txt
	$(PIP) $(LOCKED)/run.txt
	@touch $@

$(VENV)/torch-installed: $(VENV)/locked requirements/torch.txt requirements/cuda.txt
	$(call INSTALL_TORCH,$(PIP))
	@touch $@

$(VENV)/installed: $(VENV)/torch-installed pyproject.toml
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	$(PIP) check
	@touch $@

$(VENV)/installed-test: $(VENV)/installed requirements/test.txt
	$(PIP) $(LOCKED)/test.txt
	$(PIP) check
	@touch $@

.venv-uv/installed: requirements/uv.txt
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/python -m pip $(LOCKED)/uv.txt
	@touch $@

# the lowest versions are resolved each time, so that they have no lock
.venv-lowest/installed: .venv-uv/installed pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	.venv-uv/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --editable .
	.venv-uv/bin/uv pip install --quiet --python .venv-lowest/bin/python --editable '.[test,tensorboard,lora,ctranslate2]'
	@touch $@

.venv-exports/installed: requirements/exports.txt requirements/torch.txt requirements/cuda.txt
	$(PYTHON) -m venv .venv-exports
	.venv-exports/bin/python -m pip $(LOCKED)/exports.txt
	$(call INSTALL_TORCH,.venv-exports/bin/python -m pip)
	@touch $@

clean:
	rm -rf $(VENV) .venv-lowest .venv-exports .venv-uv runs
