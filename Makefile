# make demo    explain real defects on boards, then photographs, with trained explainers
# make test    everything that .ci/run runs: lint, types, all tests
# make test-deploy   the deployment examples in Node, browser and C++; installs Debian and npm packages for them
# make bench   what everything costs, in turns with what it is compared with (build/bench_*.json)
# make coverage  what of the networks that people export converts (docs/coverage.md)
# make wild  what becomes of networks that strangers ship in packages (docs/wild.md)
# make docs    the documentation site, in build/site
# make dist    the source archive and the wheel, checked, installed into an empty environment, with a bill of materials
# Both make .venv when it is missing and reuse it afterwards. PYTHON=python3.12 chooses another interpreter.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo dist docs test test-deploy lint format bench coverage wild clean help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_OUT ?= build/demo
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

help:
	@sed -n 's/^# //p' Makefile

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: fsagn-onnx needs Python 3.11 or newer; choose one with 'make PYTHON=python3.12 ...'" >&2; exit 1; }
	@[ -x $(BIN)/python ] && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) \
	  || { echo "error: cannot make $(VENV); on Debian: apt install python3-venv" >&2; exit 1; }
	@touch $@

## Each stamp is newer than what it was made of; pip leaves alone what is there already.
$(VENV)/.demo: $(VENV)/.made pyproject.toml constraints.txt
	@echo "installing the runtime, training and demo packages into $(VENV) (the first time takes minutes: torch is large)"
	@$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt
	@echo "installing everything for development into $(VENV) (the first time takes minutes: torch is large)"
	@$(PIP) --editable '.[demo,dev]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	@$(BIN)/fsagn-onnx demo --out $(DEMO_OUT)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy fsagn_onnx cli models

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

## On a CI machine the browser that the pages are tested in is installed, where that can be done without a question.
.PHONY: ci-browser
ci-browser:
	@if [ -n "$${CI:-}" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v chromium >/dev/null; then \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	    || echo "warning: chromium cannot be installed: the tests of pages in a browser are skipped" >&2; fi

test: lint ci-browser
	CI=1 $(BIN)/python -m pytest --durations=20

## apt-get asks for root; without it, or elsewhere than on Debian, install these yourself first: node, npm, chromium, cmake,
## a C++ compiler, OpenCV, nlohmann-json.
DEPLOY_FILES := nodejs:/usr/bin/node npm:/usr/bin/npm chromium:/usr/bin/chromium cmake:/usr/bin/cmake g++:/usr/bin/c++ \
  libopencv-imgcodecs-dev:/usr/include/opencv4/opencv2/imgcodecs.hpp \
  libopencv-imgproc-dev:/usr/include/opencv4/opencv2/imgproc.hpp nlohmann-json3-dev:/usr/include/nlohmann/json.hpp

examples/%/node_modules: examples/%/package.json
	cd $(@D) && npm install --ignore-scripts --no-audit --no-fund
	@touch $@

build/onnxruntime/include: examples/cpp/onnxruntime.sh | $(VENV)/.dev
	@if [ -e /usr/include/onnxruntime/onnxruntime_cxx_api.h ] || [ -n "$${ONNXRUNTIME_ROOT:-}" ]; then mkdir -p $@; \
	else examples/cpp/onnxruntime.sh build/onnxruntime $(BIN)/python; fi
	@touch $@

test-deploy: $(VENV)/.dev
	@missing=(); for entry in $(DEPLOY_FILES); do file=$${entry#*:}; \
	  [ -e $$file ] || command -v $${file##*/} >/dev/null || missing+=($${entry%%:*}); done; \
	[ $${#missing[@]} -eq 0 ] || { apt-get update -qq && apt-get install -y --no-install-recommends "$${missing[@]}"; }
	$(MAKE) examples/node/node_modules examples/web/node_modules build/onnxruntime/include
	CI=1 $(BIN)/python -m pytest tests/examples

## Fails at any warning: a link or anchor that leads nowhere, a page that nothing leads to.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --clean --quiet
	@echo "build/site/index.html; with its search: $(BIN)/python -m http.server --directory build/site"

## The wheel is built from the source archive. pip-audit asks a public database; without it, what is wrong is only said.
DIST := dist
EMPTY := build/empty
dist: $(VENV)/.dev
	@rm -rf $(DIST) $(EMPTY) build/release && $(PYTHON) -m venv build/release
	@build/release/bin/pip install --disable-pip-version-check --quiet build twine cyclonedx-bom pip-audit
	build/release/bin/python -m build --outdir $(DIST) .
	build/release/bin/python -m twine check --strict $(DIST)/*
	@$(PYTHON) -m venv $(EMPTY) && $(EMPTY)/bin/pip install --disable-pip-version-check --quiet --constraint constraints.txt $(DIST)/*.whl
	$(EMPTY)/bin/fsagn-onnx --version
	build/release/bin/cyclonedx-py environment --pyproject pyproject.toml --output-file $(DIST)/fsagn-onnx.cdx.json $(EMPTY)/bin/python
	build/release/bin/pip-audit --path $$($(EMPTY)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') --skip-editable \
	  || echo "warning: pip-audit found something, or could not ask" >&2
	@ls -l $(DIST)

## Each benchmark may take BENCH_LIMIT; one that fails or takes longer is named at the end, and the others still run.
BENCH_LIMIT ?= 20m
BENCHES := conversion cost dissection gradient report rivals server start stream training training_devices variants scale
bench: $(VENV)/.dev
	@failed=(); for name in $(BENCHES); do echo "== benchmarks/speed/$$name.py"; \
	  timeout $(BENCH_LIMIT) $(BIN)/python -m "benchmarks.speed.$$name" || failed+=("$$name"); done; \
	[ $${#failed[@]} -eq 0 ] || { echo "error: failed or longer than $(BENCH_LIMIT): $${failed[*]}" >&2; exit 1; }

$(VENV)/.coverage: $(VENV)/.dev
	@echo "installing the packages whose exports the coverage zoo checks into $(VENV) (TensorFlow among them)"
	@$(PIP) --editable '.[coverage]'
	@touch $@

## About an hour on one idle core; JOBS=4 for four rows at once. It goes on where it was interrupted.
JOBS ?= 1
coverage: $(VENV)/.coverage
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.coverage --jobs $(JOBS)

## Fetches about a gigabyte of packages by pip and npm into build/wild; hours on one core, goes on where it was interrupted.
wild: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m benchmarks.coverage.wild

clean:
	rm -rf build dist examples/*/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
