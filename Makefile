# `make demo` and `make test` are all that a fresh machine needs: each creates .venv with pinned versions first.
PYTHON ?= python3
# RELEASE=5.24 takes that release of transformers, in an environment of its own; without it the one of constraints.txt.
RELEASE ?=
VENV := .venv$(if $(RELEASE),-$(RELEASE))
BIN := $(VENV)/bin
JOBS ?= 2
# The oldest and the newest release of transformers that is supported.
SPAN := $(shell sed -n 's/^TESTED_TRANSFORMERS = ("\(.*\)", "\(.*\)")/\1 \2/p' trtllm_port/foundation/requirements.py)
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help demo test test-fast test-slow test-release test-oldest fuzz lint wheel-test bench bench-large conformance coverage coverage-beyond coverage-published quantization prove prove-quantized constraints map clean
help:
	@echo "make demo         port, build and verify the model that ships with the package"
	@echo "make test         every test that needs neither a GPU nor the network"
	@echo "make test-oldest  the fast tests with the oldest transformers that is supported"
	@echo "make test-release  the fast tests with another transformers: RELEASE=5.20"
	@echo "make fuzz         10 000 damaged files and command lines: each passes or is told; FUZZ='--first 10000' takes others"
	@echo "make lint         ruff and mypy --strict"
	@echo "make wheel-test   build the wheel and run the tests against it, with the newest transformers, as pip would take it"
	@echo "make bench        speed and memory as ratios; writes docs/benchmarks.md"
	@echo "make bench-large  the same for a model of 8 billion parameters (16 GB on disk); writes docs/benchmarks-large.md"
	@echo "make conformance  run the ONNX node tests; writes docs/conformance.md"
	@echo "make prove        put known bugs into ports and see that each is found; writes docs/verification.md"
	@echo "make prove-quantized  the same in ports with quantized weights; writes docs/verification-quantized.md"
	@echo "make coverage     port and verify every model type of transformers; writes docs/coverage.md; RELEASE=5.24 takes that"
	@echo "                  transformers and writes build/coverage-5.24/coverage.md, COVERAGE=--sample thirty types"
	@echo "make coverage-beyond  what passes: in float16, with other options and configs; writes docs/coverage.md"
	@echo "make what passes: in float16 only, without other options; writes docs/coverage.md"
	@echo "make coverage-published PUBLISHED=DIR  configs as published, one directory each; writes docs/coverage-published.md"
	@echo "make quantization  formats of quantized weights by architectures; writes docs/quantization.md; QUANTIZATION='--only Llama'"
	@echo "make map          draw the rooms of the source and what they import; writes docs/architecture.md"
	@echo "make clean        remove the environment and every build output"

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; name one with make PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	sed $(if $(RELEASE),'s/^transformers==.*/transformers==$(RELEASE).*/',-n p) constraints.txt > $(VENV)/constraints.txt
	$(BIN)/pip install --quiet --constraint $(VENV)/constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/trtllm-port demo

test: test-fast test-slow
# The test processes share the cores: with a thread for each core in each process, the fast tests took six times as long.
test-fast test-slow wheel-test: export OMP_NUM_THREADS := 1
test-fast: $(VENV)/.installed
	$(BIN)/pytest -q -n $(JOBS)
test-slow: $(VENV)/.installed
	$(BIN)/pytest -q -n $(JOBS) -m 'slow and not gpu and not network'

test-release:
	@test -n "$(RELEASE)" || { echo "name a release: make test-release RELEASE=5.20"; exit 2; }
	$(MAKE) test-fast RELEASE=$(RELEASE)

test-oldest:
	$(MAKE) test-release RELEASE=$(firstword $(SPAN))

fuzz: $(VENV)/.installed
	$(BIN)/python tests/fuzz/run.py --count 10000 --jobs $(JOBS) $(FUZZ)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel-test: $(VENV)/.installed
	rm -rf build dist .venv-wheel
	$(BIN)/python -m build --quiet --wheel --outdir dist
	$(PYTHON) -m venv .venv-wheel
	sed 's/^transformers==.*/transformers==$(lastword $(SPAN)).*/' constraints.txt > .venv-wheel/newest.txt
	.venv-wheel/bin/pip install --quiet --constraint .venv-wheel/newest.txt "$$(ls dist/*.whl)[dev]"
	cp -r tests docs pyproject.toml constraints.txt .venv-wheel/   # away from the sources; the tests of the architecture are about the checkout
	cd .venv-wheel && bin/pytest -q -n $(JOBS) -p no:cacheprovider --ignore=tests/test_architecture.py --ignore=tests/architecture

bench: $(VENV)/.installed
	$(BIN)/python tests/benchmarks/run.py --output docs/benchmarks.md

bench-large: $(VENV)/.installed
	$(BIN)/python tests/benchmarks/run.py --only diff-layers-8b --output docs/benchmarks-large.md

conformance: $(VENV)/.installed
	$(BIN)/python tests/conformance/report.py

prove: $(VENV)/.installed
	$(BIN)/python tests/prove/run.py --output docs/verification.md

prove-quantized: $(VENV)/.installed
	$(BIN)/python -m tests.prove.quantized --output docs/verification-quantized.md

coverage: $(VENV)/.installed
	$(BIN)/python tests/coverage/run.py --jobs $(JOBS) $(COVERAGE)

coverage-beyond: $(VENV)/.installed
	$(BIN)/python tests/coverage/run.py --beyond $(BEYOND) --jobs $(JOBS) $(COVERAGE)

PUBLISHED ?= ../shared/published
coverage-published: $(VENV)/.installed
	$(BIN)/python tests/coverage/run.py --published $(PUBLISHED) --jobs $(JOBS) $(COVERAGE)

quantization: $(VENV)/.installed
	$(BIN)/python tests/quantization/run.py $(QUANTIZATION)

map: $(VENV)/.installed
	$(BIN)/python tests/architecture/run.py

constraints:
	rm -rf .venv-pin && $(PYTHON) -m venv .venv-pin
	.venv-pin/bin/pip install --quiet torch==2.13.0 && .venv-pin/bin/pip install --quiet '.[dev]'
	{ echo "# What CI installs, exactly. \`make constraints\` writes it anew from a fresh environment."; \
	  .venv-pin/bin/pip freeze --exclude trtllm-port | sed 's/+cpu//'; } > constraints.txt
	rm -rf .venv-pin

clean:
	rm -rf .venv .venv-* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
