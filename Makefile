# make demo   installs what is missing and runs the demo        (output in output/demo/)
# make test   installs what is missing and runs the tests
# make lint   ruff and mypy
# make docs   the documentation as a site                       (output/site/index.html)
# make bench  installs the rivals and runs the short benchmark  (numbers in output/benchmark.json)
# make gpu    everything that needs a GPU in one go             (reports in output/gpu/; MINUTES=8 plans by what fits)
# make setup  installs only. DETECTRON2=git takes Detectron2 from upstream's repository instead of the package index.
# make dev    installs what tests and documentation need, too. As root on Debian it installs chromium,
#             which the tests of HTML pages drive.
#
# Everything goes to .venv; PYTHON chooses the interpreter it is made with (3.10-3.13).

PYTHON ?= python3
VENV ?= .venv
DETECTRON2 ?= index
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
READY := $(VENV)/.ready
DEV := $(VENV)/.dev
BENCH := $(VENV)/.bench

.PHONY: demo test lint docs bench gpu format setup dev browser clean detectron2-index detectron2-git

demo: $(READY)
	$(PY) tools/demo.py

test: dev
	$(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal

lint: dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

docs: $(DEV)
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict -f docs/site/mkdocs.yml
	@echo "The documentation is output/site/index.html"

bench: $(BENCH)
	$(PY) tools/benchmark.py short --json output/benchmark.json

gpu: dev
	$(PY) tools/gpu_check.py $(if $(MINUTES),--minutes $(MINUTES))

format: dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

setup: $(READY)

dev: $(DEV) browser

# Tests that look at pages need chromium and are skipped without it.
browser:
	@if ! command -v chromedriver >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	    echo "Installing chromium, which some tests drive"; \
	    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium chromium-driver; } \
	        >/dev/null 2>&1 || echo "No chromium: tests that need it are skipped"; \
	fi

$(READY): requirements.lock setup.py
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || { echo "error: Python 3.10-3.13 is needed; make PYTHON=... chooses it" >&2; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "Installing the packages of requirements.lock (a minute or more)"
	$(PIP) install -r requirements.lock
	$(PY) -c 'import detectron2' 2>/dev/null || $(MAKE) --no-print-directory detectron2-$(DETECTRON2)
	$(PIP) install --no-build-isolation --no-deps -e .
	touch $@

$(DEV): requirements-dev.lock $(READY)
	@echo "Installing the packages of requirements-dev.lock (a minute or more)"
	$(PIP) install -r requirements-dev.lock
	touch $@

$(BENCH): requirements-bench.lock $(DEV)
	$(PIP) install --no-deps -r requirements-bench.lock
	touch $@

# The wheel also carries a top-level package `tools`, which has no place in site-packages.
detectron2-index:
	sed -n 's/^# detectron2-index: //p' requirements.lock > $(VENV)/detectron2.txt
	site=$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	$(PIP) install --require-hashes --no-deps --only-binary=:all: --python-version 3.10 --implementation cp \
	    --target "$$site" -r $(VENV)/detectron2.txt && \
	rm -rf "$$site/tools"

detectron2-git:
	$(PIP) install --no-build-isolation --no-deps "$$(sed -n 's/^# detectron2-git: //p' requirements.lock)"

clean:
	rm -rf $(VENV) output
