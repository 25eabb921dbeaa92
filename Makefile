# One word a task. Nothing has to be activated: every recipe names the interpreter it uses.
# Needs make, Python >= 3.11 with venv and pip; no compiler, no root. `make` alone lists the tasks.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test test-browser chromium test-extras check engine fuzz proof founders suites docs schemas lock clean

# The first interpreter that is new enough; choose another with `make demo PYTHON=python3.12`.
NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	$$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)

VENV := .venv
TRAIN := .venv-train
BARE := .venv-bare
ENGINE := .venv-engine
BROWSER := .venv-browser
PY := $(VENV)/bin/python
# Tests run side by side, one process a processor: most of them wait for disks and workers.
BESIDE := -n auto --maxprocesses 8 --dist worksteal
CORE := $(VENV)/.core
TEST := $(VENV)/.test
CHECK := $(VENV)/.check
TRAINED := $(TRAIN)/.train
ALONE := $(BARE)/.core
COMPILER := $(ENGINE)/.zig
DRIVER := $(BROWSER)/.driver
LOCKED := requirements/build.txt requirements/core.txt

# Wheels only (no compiler) and exactly the locked bytes. pip would compile every module one after the other, tests of the
# libraries included; BYTECODE does it on all cores and without those, so that workers start fast from the first one.
INSTALL = -m pip install --disable-pip-version-check --no-input --no-compile --only-binary :all: --require-hashes $(QUIET)
BYTECODE = -m compileall -q -j 0 -x 'site-packages/(pip|setuptools|.*/tests?)/'
PROJECT = -m pip install --disable-pip-version-check --no-input --quiet --no-deps --no-build-isolation --editable .

test check test-browser test-extras engine fuzz proof founders docs schemas suites: QUIET := -qq

help:
	@echo 'make venv      create .venv with the locked core'
	@echo 'make demo      two whole breeding rounds in ./demo, from a fresh clone in about two minutes'
	@echo 'make test      the tests (without long studies)'
	@echo 'make test-browser  the page of a bundle in a Chromium (installs playwright into .venv-browser, and Debian'\''s Chromium)'
	@echo 'make test-extras  the tests that need the extra train (torch, in .venv-train)'
	@echo 'make chromium  install Chromium with apt, for the tests of the page'
	@echo 'make check     ruff, mypy, import contracts, house tests, generated pages and schemas up to date'
	@echo 'make engine    compile the engine from its C sources (installs zig into .venv-engine)'
	@echo 'make fuzz      every reader of foreign files driven by coverage, half a minute each (Linux, x86-64)'
	@echo 'make proof     everything long: kills, studies, seeds; figures go to docs/proof/'
	@echo 'make founders  train the shipped founders again (installs torch into .venv-train) and compare'
	@echo 'make suites    compare the shipped suites with what their seed gives'
	@echo 'make docs      write the generated pages below docs/'
	@echo 'make schemas   write schemas/ from the records'
	@echo 'make lock      resolve requirements/*.txt again (needs uv; UPGRADE=--upgrade takes newer versions)'
	@echo 'make clean     delete ./demo, caches and environments'

venv: $(CORE)

demo: $(CORE)
	@if [ -e demo ] && [ ! -f demo/lab/studbook.json ] && [ ! -d demo/keys ]; then \
		echo './demo was not made by the demo; move it away first' >&2; exit 1; fi
	@rm -rf demo
	@$(VENV)/bin/studbook demo demo

test: $(TEST)
	@mkdir -p build
	$(PY) -m pytest -q $(BESIDE) -m 'not proof and not train and not browser' --junitxml=build/tests.xml

check: $(CHECK)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --strict src tools
	$(VENV)/bin/lint-imports --no-cache
	$(PY) -m pytest -q tests/house
	$(PY) tools/schemas.py --check
	$(PY) tools/docs.py --check
	$(PY) tools/operator_docs.py --check
	$(PY) tools/adapter_cases.py --check
	$(PY) tools/slm_cases.py --check
	$(PY) tools/engine.py --check
	$(PY) tools/page_forms.py --check

test-browser: $(DRIVER) | chromium
	@mkdir -p build
	$(BROWSER)/bin/python -m pytest -q $(BESIDE) -m browser --junitxml=build/tests-browser.xml tests/browser

# The browser is the system's own; it is installed here on a Debian only, and where that may be done.
chromium:
	@command -v chromium > /dev/null || { apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium; } \
		|| { echo 'Chromium is needed: install the package chromium and run this again' >&2; exit 1; }

test-extras: $(TRAINED)
	@mkdir -p build
	$(TRAIN)/bin/python -m pytest -q -m 'train and not proof' --junitxml=build/tests-extras.xml

engine: $(COMPILER)
	$(ENGINE)/bin/python tools/engine.py

fuzz: $(TRAINED)
	$(TRAIN)/bin/python tools/fuzz.py --budget 30

proof: $(TEST) $(TRAINED) $(ALONE) $(DRIVER) | chromium
	$(PY) -m pytest -q -m 'proof and not train'
	$(PY) benchmarks/studies/false_promotion.py
	$(PY) benchmarks/studies/judgement.py
	$(PY) benchmarks/studies/canary.py
	$(TRAIN)/bin/python -m pytest -q -m train
	$(TRAIN)/bin/python tools/fuzz.py --budget 600
	$(TRAIN)/bin/python benchmarks/studies/founders.py
	$(TRAIN)/bin/python benchmarks/studies/search.py
	$(TRAIN)/bin/python benchmarks/studies/digits.py --out docs/proof
	$(TRAIN)/bin/python benchmarks/studies/trained.py
	$(TRAIN)/bin/python benchmarks/studies/federated.py
	$(TRAIN)/bin/python benchmarks/studies/generations.py
	$(TRAIN)/bin/python benchmarks/studies/orchestration.py
	$(PY) benchmarks/studies/controller.py
	$(TRAIN)/bin/python benchmarks/bench_routing.py --write docs/proof
	$(TRAIN)/bin/python benchmarks/bench_search.py --write docs/proof
	$(PY) benchmarks/bench_evaluate.py --peer $(TRAIN)/bin/python --own $(BARE)/bin/python --write docs/proof
	$(TRAIN)/bin/python benchmarks/bench_engine.py --peer $(TRAIN)/bin/python --own $(BARE)/bin/python \
		--browser $(BROWSER)/bin/python --write docs/proof
	$(TRAIN)/bin/python benchmarks/bench_serve.py --write docs/proof
	$(PY) benchmarks/bench_ledger.py --write docs/proof
	$(PY) benchmarks/bench_sandbox.py --write docs/proof
	$(PY) benchmarks/bench_verify.py --write docs/proof
	$(PY) benchmarks/bench_resident.py --write docs/proof
	$(PY) benchmarks/bench_merge.py --peer $(TRAIN)/bin/python --own $(BARE)/bin/python --write docs/proof
	$(PY) benchmarks/bench_copy_limit.py --own $(BARE)/bin/python --write docs/proof

founders: $(TRAINED)
	$(TRAIN)/bin/python examples/founders/train.py

suites: $(CORE)
	$(PY) examples/founders/suites.py --check

docs: $(CORE)
	$(PY) tools/docs.py
	$(PY) tools/operator_docs.py
	$(PY) tools/adapter_cases.py
	$(PY) tools/slm_cases.py

schemas: $(CORE)
	$(PY) tools/schemas.py
	$(PY) tools/page_forms.py

# Exact versions with hashes and without any index address, one resolution for every platform and Python >= 3.11.
UV ?= uv
RESOLVE = $(UV) pip compile --quiet --no-config --python-version 3.11 --no-header --no-emit-index-url \
	--no-emit-find-links $(UPGRADE)
HASHED = $(RESOLVE) --universal --fork-strategy fewest --generate-hashes
# The macOS build of torch names the fewest packages: what the GPU builds add, torch pins itself. What exists for Linux
# alone is pinned in train.in and taken over as it stands there.
UNHASHED = MACOSX_DEPLOYMENT_TARGET=14.0 $(RESOLVE) --python-platform aarch64-apple-darwin --no-annotate

lock:
	@mkdir -p build
	$(HASHED) requirements/build.in -o requirements/build.txt
	$(HASHED) -c requirements/build.txt pyproject.toml -o requirements/core.txt
	$(HASHED) -c requirements/build.txt -c requirements/core.txt pyproject.toml --group test -o requirements/test.txt
	$(HASHED) -c requirements/build.txt -c requirements/test.txt pyproject.toml --group check -o requirements/check.txt
	$(HASHED) requirements/engine.in -o requirements/engine.txt
	$(HASHED) -c requirements/build.txt -c requirements/test.txt requirements/browser.in -o requirements/browser.txt
	$(UNHASHED) -c requirements/test.txt -c requirements/engine.txt requirements/train.in -o build/train.txt
	(grep '^#' requirements/train.in; grep -v '^#' build/train.txt; grep linux requirements/train.in) > requirements/train.txt

# Environments. A stamp file says that a lock was installed, so running a task again costs nothing.
$(VENV)/bin/python $(TRAIN)/bin/python $(BARE)/bin/python $(ENGINE)/bin/python $(BROWSER)/bin/python:
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is needed, with venv and pip' >&2; exit 1; }
	@echo 'creating $(@D:/bin=) with $(PYTHON)'
	@$(PYTHON) -m venv $(@D:/bin=)

$(CORE): $(LOCKED) pyproject.toml | $(PY)
	@echo 'installing the locked core: numpy, numba, wasmtime, msgspec, cryptography, click, rich (about 90 MB)'
	@$(PY) $(INSTALL) -r requirements/build.txt -r requirements/core.txt
	@$(PY) $(PROJECT)
	@echo 'compiling to bytecode'
	@$(PY) $(BYTECODE) $(VENV)/lib || true
	@touch $@

$(TEST): requirements/test.txt $(CORE)
	@echo 'installing the locked test tools: pytest, hypothesis, scipy'
	@$(PY) $(INSTALL) -r requirements/test.txt
	@$(PY) $(BYTECODE) $(VENV)/lib || true
	@touch $@

$(CHECK): requirements/check.txt $(TEST)
	@echo 'installing the locked checkers: ruff, mypy, import-linter'
	@$(PY) $(INSTALL) -r requirements/check.txt
	@touch $@

$(TRAINED): requirements/train.txt requirements/test.txt $(LOCKED) pyproject.toml | $(TRAIN)/bin/python
	@echo 'installing torch and the test tools into $(TRAIN)'
	@$(TRAIN)/bin/python $(INSTALL) -r requirements/build.txt -r requirements/test.txt
	@$(TRAIN)/bin/python -m pip install --disable-pip-version-check --no-input --quiet -r requirements/train.txt
	@$(TRAIN)/bin/python $(PROJECT)
	@touch $@

$(COMPILER): requirements/engine.txt | $(ENGINE)/bin/python
	@echo 'installing zig into $(ENGINE)'
	@$(ENGINE)/bin/python $(INSTALL) -r requirements/engine.txt
	@touch $@

$(DRIVER): requirements/browser.txt requirements/test.txt $(LOCKED) pyproject.toml | $(BROWSER)/bin/python
	@echo 'installing what drives a browser and the test tools into $(BROWSER)'
	@$(BROWSER)/bin/python $(INSTALL) -r requirements/build.txt -r requirements/test.txt -r requirements/browser.txt
	@$(BROWSER)/bin/python $(PROJECT)
	@touch $@

# What a user has: nothing but the core. Libraries that happen to lie beside it change what a start costs.
$(ALONE): $(LOCKED) pyproject.toml | $(BARE)/bin/python
	@$(BARE)/bin/python $(INSTALL) -r requirements/build.txt -r requirements/core.txt
	@$(BARE)/bin/python $(PROJECT)
	@$(BARE)/bin/python $(BYTECODE) $(BARE)/lib || true
	@touch $@

clean:
	@if [ -f demo/lab/studbook.json ] || [ -d demo/keys ]; then rm -rf demo; fi
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis $(VENV) $(TRAIN) $(BARE) $(ENGINE) $(BROWSER)
	find src tests tools benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
