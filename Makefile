# The two commands: `make up` and `make test`. Each sets up what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# uv installs in a quarter of pip's time. Where there is none, or it finds no packages, as behind an
# index that only pip's configuration names, pip installs them and says what is wrong.
UV := uv>=0.13,<0.14

# Bytecode is kept: a run of the tests starts hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install up down test test-long lint bench chaos mutations picture

help:
	@echo "make up          install, start everything, stream real market data; Ctrl-C stops it"
	@echo "make down        stop what make up started"
	@echo "make test        install, run the tests four at a time; PYTEST_ARGS=-n0: one at a time"
	@echo "make test-long   run the tests that take longer: minutes of faults, many more examples"
	@echo "make lint        check format, lint, types and the direction of imports"
	@echo "make chaos       inject faults under load, prove that no tick is lost (SEED=1 MINUTES=2)"
	@echo "make mutations   make deliberate mistakes, show that a test catches each; an hour or two"
	@echo "make bench       measure beside peers, an hour; BENCH_ARGS=--quick tries it"
	@echo "make picture     draw the pictures of README.md from a running make up"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Tickwell needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/pip install --quiet --disable-pip-version-check '$(UV)' || echo 'pip installs without it'
	$(BIN)/uv pip install --quiet --python $(VENV) --editable '.[dev]' 2>/dev/null || \
		$(BIN)/pip install --quiet --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

up: install
	$(BIN)/tickwell up

down: install
	$(BIN)/tickwell down

# Most tests wait for processes of their own, so four at a time keep two cores at work. Each of the
# four has stores of its own, and all have one broker. A module stays in one of them, for its fixtures,
# and the longest modules come first. Machine code is compiled before, once, and not by every process
# at the same time.
test: install
	$(BIN)/python -c 'from pipelines.runtime.machine_code import warm_up; warm_up()'
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# Properties of decoder and windows with thirty times the examples, then what is marked `long`.
test-long: install
	$(BIN)/pytest --hypothesis-profile long --timeout 3600 tests/unit/pipelines/ticks \
		tests/unit/pipelines/compute $(PYTEST_ARGS)
	$(BIN)/pytest -m long --timeout 3600 $(PYTEST_ARGS)

lint: install
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

SEED ?= 1
MINUTES ?= 2

chaos: install
	$(BIN)/python -m tests.chaos --seed $(SEED) --minutes $(MINUTES) $(if $(CLUSTER),--cluster) $(if $(REPORT),--report $(REPORT))

mutations: install
	$(BIN)/python -m tests.mutations $(MUTATIONS_ARGS)

picture: install
	$(BIN)/pip install --quiet --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m docs.picture
