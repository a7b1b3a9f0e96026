# Two commands matter: `make demo` and `make test`. Both set up everything they need.
# On the machine: Python >= 3.11, Node >= 20, npm, make. For the browser tests also Chromium (see .ci/run); for those of
# the `ai` package, which needs Python 3.12, also one as new as that.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8123

.PHONY: help setup demo test check format build test-python test-js bench chaos clean

help:
	@echo "make demo   set up, and serve a chat in the browser (no key needed)"
	@echo "make test   set up, check, and run every test"
	@echo "make check  format, lint, strict types, layering, nothing unused, a sound npm package"
	@echo "make bench  measure against what people use today (BENCH='--only W3 --rounds 1' for a part)"
	@echo "make chaos  the fault suite at full length, about an hour (CHAOS_ARGS='-k disk' for a part)"
	@echo "make format rewrite the sources in the house format"

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Strandline needs Python 3.11 or newer; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

.venv-ai/.ready: pyproject.toml $(VENV)/.ready
	$(BIN)/python tests/python/second_python.py .venv-ai

node_modules/.ready: package.json package-lock.json $(wildcard */package.json examples/*/package.json) .npmrc
	# Not `npm ci`: it insists on the binaries of every platform, which a lock file made on one platform may lack.
	npm install --no-audit --no-fund --loglevel=error
	touch $@

SHIM_SOURCES := $(shell find js-adapter/src -name '*.ts' 2>/dev/null) js-adapter/tsconfig.json
DEMO_SOURCES := $(shell find demo/src demo/index.html -type f 2>/dev/null) demo/vite.config.ts

js-adapter/dist/index.js: node_modules/.ready $(SHIM_SOURCES)
	npm run --silent build -w js-adapter
	touch $@

python/strandline/demo/static/index.html: js-adapter/dist/index.js $(DEMO_SOURCES)
	npm run --silent build -w demo
	touch $@

build: js-adapter/dist/index.js python/strandline/demo/static/index.html

setup: $(VENV)/.ready node_modules/.ready build

demo: setup
	$(BIN)/strandline demo --port $(PORT)

check: setup
	$(BIN)/ruff format --check python tests benchmarks examples
	$(BIN)/ruff check python tests benchmarks examples
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/python/test_layering.py
	npm run --silent lint
	npm run --silent unused
	npm run --silent package
	npm run --silent types -w demo
	npm run --silent types -w tests
	npm run --silent types -w examples/tanstack
	npx tsc -p examples/remote-agent-typescript --noEmit

format: setup
	$(BIN)/ruff check --fix --quiet python tests/python benchmarks || true
	$(BIN)/ruff format python tests/python benchmarks examples
	npx biome check --write

# Redis for the sides that need one; nothing of this is part of the product.
bench: setup
	command -v redis-server >/dev/null || sudo apt-get install -y -qq redis-server
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'redis[hiredis]>=6'
	npm install --prefix benchmarks/sides --no-audit --no-fund --no-package-lock --loglevel=error
	$(BIN)/python benchmarks/run.py $(BENCH)

# What `make test` does a few times, many times: kills, lost power, full disks, herds. CHAOS_SEED=n begins elsewhere.
chaos: setup
	CHAOS=long $(BIN)/python -m pytest tests/python/chaos tests/python/crash -v --durations=10 $(CHAOS_ARGS)

test-python: setup .venv-ai/.ready
	$(BIN)/python -m pytest

test-js: setup
	npm run --silent test -w tests

test: check test-python test-js

clean:
	rm -rf $(VENV) .venv-ai node_modules js-adapter/dist python/strandline/demo/static artefacts examples/*/dist examples/*/.next
