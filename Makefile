# Needs make and python3 (3.11 or newer, with venv). Nothing else: each target
# that needs the locked environment makes it first, in .venv.

PYTHON3 ?= python3
UV ?= uv
WORKERS ?= 2
# Longest time one notebook cell may take under test, in seconds.
CELL_TIMEOUT ?= 300
# The lock holds the CPU build of JAX. Naming the platform keeps a machine
# with a GPU from warning about it in every notebook.
export JAX_PLATFORMS ?= cpu
# An activated environment, or paths and backends set for another project,
# must not leak in.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME MPLBACKEND

VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip install --quiet --disable-pip-version-check
LOCKED := $(VENV)/.locked
READY := $(VENV)/.ready
NOTEBOOKS := $(sort $(wildcard book/*.ipynb))
# Kept: cell ids, counts and small text outputs, which the tests compare.
# Dropped: images, timings, and which Python happened to run.
STRIP := $(VENV)/bin/nbstripout --keep-id --keep-count --max-size 4k \
	--extra-keys "metadata.language_info.version cell.metadata.execution"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup book test check lint strip lab bench lock clean

help:
	@echo "make book    build the book, executed, in _build/html"
	@echo "make test    test the package and run every notebook against its stored text"
	@echo "make check   check the built book: links, alt text, left-over TeX, outside hosts"
	@echo "make lint    check style, and that notebooks are stored in normal form"
	@echo "make strip   bring notebooks to the stored form: no images, small text outputs stay"
	@echo "make lab     open the notebooks in JupyterLab"
	@echo "make bench   time kernels against a matrix product and write benchmarks.json (PEER=1: also against neural-tangents)"
	@echo "make lock    renew requirements.txt from pyproject.toml (needs uv)"
	@echo "make clean   remove what was built, and the environment"

setup: $(READY)

# A fresh environment for every change of the lock, so that it holds exactly
# what is locked; a change of pyproject.toml only installs the package again.
$(LOCKED): requirements.txt
	@$(PYTHON3) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("This book needs Python 3.11 or newer, but $(PYTHON3) is %d.%d. Name a newer one: make PYTHON3=python3.12 ..." % v[:2])'
	$(PYTHON3) -m venv --clear $(VENV)
	$(PIP) --require-hashes -r requirements.txt
	@touch $@

$(READY): $(LOCKED) pyproject.toml
	$(PIP) --no-deps --no-build-isolation --no-index -e .
	@touch $@

# The execution cache looks at the notebooks only, so an edit of the package
# or of a pin would leave old numbers on the page. Its key below covers both.
CACHE_KEY = $(shell find ntk_helpers requirements.txt -type f \
	! -name '*.pyc' -exec cksum {} + 2>/dev/null | LC_ALL=C sort | cksum | tr ' ' -)
# Pages are always written anew (cached notebooks are not executed again):
# Sphinx repeats no warning about a page it need not read a second time.
book: $(READY)
	@test -e _build/cache-$(CACHE_KEY) || rm -rf _build/.jupyter_cache _build/cache-*
	@mkdir -p _build && touch _build/cache-$(CACHE_KEY)
	rm -rf _build/html _build/.doctrees
	$(VENV)/bin/jupyter-book build -n -W --keep-going .
	@echo "Open _build/html/index.html"

# The tests of the package mostly wait for the compiler, not for its programs.
# The notebooks, whose run times matter, are compiled as a reader would.
test: $(READY)
	XLA_FLAGS="--xla_backend_optimization_level=0 $(XLA_FLAGS)" \
		$(PYTHON) -m pytest -n $(WORKERS) --dist worksteal
	$(PYTHON) -m pytest -n $(WORKERS) --dist loadfile --nbval \
		--nbval-current-env --nbval-cell-timeout=$(CELL_TIMEOUT) $(NOTEBOOKS)

check: $(READY)
	@test -e _build/html/index.html || { echo "Nothing to check: run make book first."; exit 1; }
	$(PYTHON) -m pytest tests/site/check_html.py

lint: $(READY)
	$(VENV)/bin/ruff check ntk_helpers tests book
	$(VENV)/bin/ruff format --check ntk_helpers tests book
	$(STRIP) --verify $(NOTEBOOKS)

strip: $(READY)
	$(STRIP) $(NOTEBOOKS)

lab: $(READY)
	$(VENV)/bin/jupyter-lab book

# PEER=1 builds an environment for neural-tangents in _build/peer. POINTS is
# the number of points whose kernel's memory is measured.
bench: $(READY)
	$(PYTHON) -m tests.benchmarks $(if $(PEER),all) $(if $(POINTS),--points $(POINTS))

lock:
	$(UV) pip compile --quiet --universal --python-version 3.11 \
		--fork-strategy fewest --no-emit-index-url --generate-hashes \
		--custom-compile-command "make lock" \
		--extra book --extra test --extra lab \
		--output-file requirements.txt pyproject.toml

clean:
	rm -rf _build $(VENV)
