# Two commands do all the set-up: `make demo` and `make test`. Both work from a clean clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# How long the server is put under twice the load that it takes.
SOAK_SECONDS ?= 120
# The interpreters of test-lowest, by name or by path.
PYTHONS ?= python3.11 python3.12 python3.13 python3.14
PIP := $(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check

.PHONY: kernels demo test test-arm test-release test-lowest lint format types docs clean

# pip runs from outside, so that a Python without ensurepip can make the environment too.
$(BIN)/python:
	$(PYTHON) -m venv --without-pip $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e '.[train]'
	touch $@

# By the lock, each file by its hash, where pip finds the lock's torch: CPython 3.11 on Linux x86-64.
LOCKED_TORCH := $(shell sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.lock)

$(VENV)/.installed-dev: pyproject.toml constraints.txt requirements.lock | $(BIN)/python
	if $(PIP) install --quiet --no-deps --dry-run $(LOCKED_TORCH) 2> /dev/null; then \
		$(PIP) install --quiet --require-hashes -r requirements.lock && \
		$(PIP) install --quiet --no-deps --no-build-isolation -e .; \
	else \
		echo "no $(LOCKED_TORCH) here: installing by constraints.txt, without hashes"; \
		$(PIP) install --quiet -c constraints.txt -e '.[dev]'; \
	fi
	touch $(VENV)/.installed $@

kernels: | $(BIN)/python
	$(BIN)/python src/modernbert/model/native/build.py

demo: $(VENV)/.installed kernels
	$(BIN)/modernbert demo demo

test: lint types kernels $(VENV)/.installed-dev
	MODERNBERT_SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest -n 2 --dist worksteal

# The kernels of ARM, cross-compiled and run under qemu; says what is missing where it skips.
test-arm: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -rs tests/model/native -k "arm or another_architecture"

# The wheel and the source archive, installed into an empty environment and used; some minutes.
test-release: $(VENV)/.installed-dev
	MODERNBERT_TEST_RELEASE=1 $(BIN)/python -m pytest -rs tests/test_release.py

# The lowest versions that pyproject.toml allows, on each of these that is here; gigabytes of packages.
test-lowest: kernels
	.ci/lowest $(PYTHONS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) install --quiet -c constraints.txt -e '.[docs]'
	touch $@

# The parts of the documents that come from the code, and the site of all documents in build/site.
docs: $(VENV)/.installed-docs
	$(BIN)/python -m docs.tables
	$(BIN)/python -m docs.site

clean:
	rm -rf $(VENV) demo runs build/pages build/site .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
