# Each target sets up .venv by itself when it is missing or older than what it is made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OTHER_PYTHONS ?= python3.12 python3.13
STAMP := $(VENV)/installed

.PHONY: install serve test lint bench clean

install: $(STAMP)

KERNELS := $(wildcard engine/compute/kernels/*.cpp engine/compute/kernels/*.h)

$(STAMP): pyproject.toml constraints.txt $(KERNELS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip
	# torch by its exact version first: this takes the build for CPUs where one is at hand
	$(BIN)/pip install --quiet -c constraints.txt $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install --quiet -c constraints.txt --editable '.[dev]'
	# their metadata ask for an old huggingface_hub; they run with the current one
	$(BIN)/pip install --quiet --no-deps -c constraints.txt text-generation langchain-huggingface
	touch $@

serve: $(STAMP)
	$(BIN)/millrace serve $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# What cannot be installed fails with a list; PARTIAL=1 runs the rest and says what was not run.
test: $(STAMP) lint
	$(BIN)/python tests/setup_peers.py $(if $(PARTIAL),--partial)
	$(BIN)/pytest -q $(ARGS) $(if $(PARTIAL),--partial)
	$(BIN)/python tests/plain_suite.py $(OTHER_PYTHONS)

bench: $(STAMP)
	$(BIN)/python benchmarks/overhead.py --short
	$(BIN)/python benchmarks/events.py --short
	$(BIN)/python benchmarks/step.py --short
	$(BIN)/python benchmarks/pace.py --short
	$(BIN)/python benchmarks/overlap.py --short
	$(BIN)/python benchmarks/guided.py --short
	$(BIN)/python benchmarks/scheduler.py --short
	$(BIN)/python benchmarks/speculate.py --short
	$(BIN)/python benchmarks/start.py --short
	$(BIN)/python benchmarks/load.py --short

clean:
	rm -rf build engine/compute/kernels/*.so $(VENV) .venv-* tests/e2e/js/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis
