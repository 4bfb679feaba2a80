# The two commands: `make up` and `make test`. Each sets up what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install up down test lint bench chaos mutations

help:
	@echo "make up      install, start everything, stream real data (Ctrl-C stops)"
	@echo "make down    stop what make up started"
	@echo "make test    install and run the tests"
	@echo "make lint    format, lint, types and the direction of imports"
	@echo "make chaos   kill everything under load, prove that nothing is lost (SEED=1 MINUTES=2)"
	@echo "make mutations   make each mistake of a list, and see that a test catches it; half an hour"
	@echo "make bench   measure beside peers, three quarters of an hour; BENCH_ARGS=--quick tries it"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Tickwell needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

up: install
	$(BIN)/tickwell up

down: install
	$(BIN)/tickwell down

test: install
	$(BIN)/pytest $(PYTEST_ARGS)

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
	$(BIN)/python -m tests.chaos --seed $(SEED) --minutes $(MINUTES) $(if $(REPORT),--report $(REPORT))

mutations: install
	$(BIN)/python -m tests.mutations $(MUTATIONS_ARGS)
